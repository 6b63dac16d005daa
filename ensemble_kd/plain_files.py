"""Reading YAML and JSON that may come from strangers: plain values, of a size that can be held."""

from __future__ import annotations

import io
import json
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ensemble_kd.errors import UserError

DEEPEST = 100
"""Levels of a YAML file."""

MOST = 200_000
"""Values of a YAML file, where one that is referred to counts each time."""

LARGEST = 1 << 24
"""Bytes of a YAML file."""

LARGEST_JSON = 1 << 28
"""Bytes of a JSON file; the largest that are read are those of tokenizers."""

DIGITS = 1000
"""Characters of a number in a YAML file: libraries take hours for one of millions."""


def read_yaml(path: Path) -> Any:
    """A YAML file as plain values; interpolations stay the texts that they are.

    Raises:
        UserError: it cannot be read, or is too large, too deep or endless.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        text = _text(path)
        expect_small_yaml(text)
        return OmegaConf.to_container(OmegaConf.load(io.StringIO(text)), resolve=False)
    except (YAMLError, OmegaConfBaseException, OSError, ValueError, TypeError) as failure:
        reason = textwrap.shorten(str(failure), 200, placeholder=" ...")
        raise UserError(f"{path}: not readable: {reason}") from failure


def expect_small_yaml(text: str) -> None:
    """See that a YAML text, once its references are followed, is neither deep nor vast.

    Raises:
        ValueError: it is.
        yaml.YAMLError: it is no YAML.
    """
    import yaml

    # Libraries follow references by copying: ten lines can stand for more than any memory holds.
    sizes: dict[str, int] = {}
    inside: list[tuple[str | None, int]] = [(None, 0)]
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        added = 0
        anchor: str | None = getattr(event, "anchor", None)
        tag = getattr(event, "tag", None)
        if tag is not None and (tag.startswith("!") or ":python/" in tag):
            raise ValueError(f"the tag {tag!r} of something else than a plain value")
        if isinstance(event, yaml.CollectionStartEvent):
            inside.append((anchor, 1))
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, added = inside.pop()
        elif isinstance(event, yaml.ScalarEvent):
            added = 1
            if (
                len(event.value) > DIGITS
                and event.implicit[0]
                and event.value[0] in "+-.0123456789"
            ):
                raise ValueError(f"a number of more than {DIGITS} characters")
        elif isinstance(event, yaml.AliasEvent):
            if anchor not in sizes:
                raise ValueError(f"the reference {anchor!r} leads into itself or nowhere")
            added = sizes[anchor]
        if anchor is not None and added:
            sizes[anchor] = added
        inside[-1] = (inside[-1][0], inside[-1][1] + added)
        if len(inside) > DEEPEST:
            raise ValueError(f"more than {DEEPEST} levels")
        if inside[-1][1] > MOST:
            raise ValueError(f"more than {MOST} values")


def expect_small_options(folder: Path, groups: Iterable[str]) -> None:
    """See to the YAML files of the user's own options, before a library reads them.

    Args:
        folder: of ``--config-dir``.
        groups: names of the folders in it that count.

    Raises:
        UserError: one is too large, too deep or endless; what is no YAML is left to the library.
    """
    for path in (path for group in groups for path in sorted((folder / group).rglob("*.yaml"))):
        _expect_small_option(path)


def _expect_small_option(path: Path) -> None:
    from yaml import YAMLError

    try:
        expect_small_yaml(_text(path))
    except (YAMLError, OSError):
        return
    except ValueError as failure:
        raise UserError(f"{path}: not readable: {failure}") from failure


def read_json(path: Path) -> Any:
    """What a JSON file says.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no file, is too large, no JSON, or nested deeper than can be read.
    """
    return parse_json(_text(path, LARGEST_JSON))


def parse_json(text: str | bytes) -> Any:
    """What a JSON text says.

    Raises:
        ValueError: it is none, or is nested deeper than can be read.
    """
    try:
        return json.loads(text)
    except RecursionError as failure:
        raise ValueError("nested too deeply") from failure


def _text(path: Path, largest: int = LARGEST) -> str:
    if path.exists() and not path.is_file():  # a pipe, say, which would never end
        raise ValueError("not a file")
    if path.stat().st_size > largest:
        raise ValueError(f"more than {largest >> 20} MiB")
    return path.read_text(encoding="utf-8")
