"""What the arguments of a constructor may be, by the types that it declares."""

from __future__ import annotations

import collections.abc
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union

from ensemble_kd.targets import Node, locate


def hints_of(target: Callable[..., Any]) -> dict[str, Any]:
    """The types that a class or function declares for its arguments, as far as they resolve."""
    called = target.__init__ if inspect.isclass(target) else target
    try:
        return typing.get_type_hints(called)
    except (NameError, TypeError, AttributeError):
        return {}


def fits(value: Any, hint: Any, key: str, allow: Sequence[str]) -> bool:
    """Whether a plain value or a node can be what a type hint asks for; unknown hints admit all."""
    if hint is Any:
        return True
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return any(fits(value, option, key, allow) for option in arguments)
    if origin is Literal:
        return value in arguments
    if hint in (None, type(None)):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is str:
        return isinstance(value, str)
    container = origin or hint
    if isinstance(value, Mapping) and "_target_" in value:
        return _makes(value, hint, key, allow)
    if container in (list, tuple, collections.abc.Sequence, collections.abc.Iterable):
        inner = arguments[0] if arguments else Any
        return isinstance(value, list | tuple) and all(
            fits(item, inner, key, allow) for item in value
        )
    if container in (dict, collections.abc.Mapping):
        inner = arguments[1] if len(arguments) == 2 else Any
        return isinstance(value, Mapping) and all(
            fits(item, inner, key, allow) for item in value.values()
        )
    if hint is Path:
        return isinstance(value, str | Path)
    if inspect.isclass(hint):
        # Python looks only at those protocols that ask for it, and no plain value is any other.
        protocol = getattr(hint, "_is_protocol", False)
        told = not protocol or getattr(hint, "_is_runtime_protocol", False)
        return told and isinstance(value, hint)
    return origin is not collections.abc.Callable


def _makes(node: Node, hint: Any, key: str, allow: Sequence[str]) -> bool:
    """Whether what a nested node constructs is an instance of a hinted class."""
    if not inspect.isclass(hint) or node.get("_partial_") or getattr(hint, "_is_protocol", False):
        return True
    made = locate(node["_target_"], key, allow)
    if hint in (dict, list, tuple, collections.abc.Mapping, collections.abc.Sequence):
        return hint in (dict, collections.abc.Mapping)
    return not inspect.isclass(made) or issubclass(made, hint)


def words(hint: Any) -> str:
    """A type hint as a reader would say it."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(words(option) for option in arguments)
    if origin is Literal:
        return "one of " + ", ".join(repr(option) for option in arguments)
    if hint in (None, type(None)):
        return "null"
    if origin in (list, tuple, collections.abc.Sequence):
        return f"a list of {words(arguments[0])}" if arguments else "a list"
    if origin in (dict, collections.abc.Mapping):
        return "a mapping"
    plain = {
        int: "an integer",
        float: "a number",
        str: "text",
        bool: "true or false",
        Path: "a path",
    }
    return plain.get(hint, getattr(hint, "__name__", str(hint)))
