"""Whether what was read from a JSON file has the form that a ``TypedDict`` gives it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints, is_typeddict

from ensemble_kd.errors import UserError
from ensemble_kd.plain_files import read_json

WORDS = {str: "a text", bool: "true or false", int: "a whole number", float: "a number"}
LONGEST = 60


def read_form(path: Path, form: Any, schema: int, what: str) -> Any:
    """What a JSON file holds, which has a number for its schema and a form.

    Args:
        path: of the file.
        form: a ``TypedDict``, see ``expect_form``.
        schema: that is expected.
        what: what it should be, for messages: ``the JSON of a run``.

    Raises:
        UserError: it is not there, not whole, of another schema or of another form.
    """
    try:
        content = read_json(path)
    except OSError as failure:
        raise UserError(f"cannot read {path}: {failure.strerror or failure}") from failure
    except ValueError as failure:
        raise UserError(f"{path}: expected {what}, got something else") from failure
    found = content.get("schema") if isinstance(content, dict) else None
    if found != schema:
        earlier = ", of an earlier version: run it again" if found in range(schema) else ""
        raise UserError(f"{path}: expected schema {schema}, got {found!r}{earlier}")
    expect_form(content, form, path)
    return content


def expect_form(content: object, form: Any, path: Path, *key: str) -> None:
    """What was read must be of a form; keys that the form does not know do not matter.

    Args:
        content: of the file, as ``json`` gives it.
        form: a ``TypedDict``, or what is made of ``dict``, ``list``, ``str``, ``bool``, ``int``,
            ``float``, ``None`` and ``Any``; of several, none of them holds others.
        path: of the file.
        key: where in the file the content stands, unless it is all of it.

    Raises:
        UserError: it is not; the message names the first key that is wrong.
    """
    _expect(content, form, key, path)


def _expect(found: object, form: Any, key: tuple[str, ...], path: Path) -> None:
    origin, parts = get_origin(form), get_args(form)
    if form is Any:
        return
    if origin in (Union, UnionType):
        own = [part for part in parts if part is not type(None)]
        if found is None and len(own) < len(parts):
            return
        if len(own) == 1:
            _expect(found, own[0], key, path)
        elif not any(_is(found, part) for part in own):
            raise _wrong(found, " or ".join(WORDS[part] for part in own), key, path)
    elif is_typeddict(form):
        _expect_typed(found, form, key, path)
    elif origin is dict:
        for name, value in _expect_mapping(found, key, path).items():
            _expect(value, parts[1], (*key, name), path)
    elif origin is list:
        if not isinstance(found, list):
            raise _wrong(found, "a list", key, path)
        for place, value in enumerate(found):
            _expect(value, parts[0], (*key, str(place)), path)
    elif not _is(found, form):
        raise _wrong(found, WORDS[form], key, path)


def _expect_typed(found: object, form: Any, key: tuple[str, ...], path: Path) -> None:
    mapping = _expect_mapping(found, key, path)
    missing = sorted(form.__required_keys__ - set(mapping))
    if missing:
        where = ": ".join([str(path), *([".".join(key)] if key else [])])
        raise UserError(f"{where}: expected the key {missing[0]!r}, which is not there")
    for name, own in get_type_hints(form).items():
        if name in mapping:
            _expect(mapping[name], own, (*key, name), path)


def _expect_mapping(found: object, key: tuple[str, ...], path: Path) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise _wrong(found, "keys and values", key, path)
    return found


def _is(found: object, form: type) -> bool:
    """A whole number is a number as well, true and false are none, nor is NaN."""
    if form is str or form is bool:
        return isinstance(found, form)
    if isinstance(found, bool) or not isinstance(found, int if form is int else (int, float)):
        return False
    return abs(found) <= sys.float_info.max


def _wrong(found: object, wanted: str, key: tuple[str, ...], path: Path) -> UserError:
    shown = json.dumps(found)
    shown = shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}..."
    return UserError(f"{path}: {'.'.join(key) or 'content'}: expected {wanted}, got {shown}")
