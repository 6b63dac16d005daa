"""From a constructor node to an object, and the only place where that happens.

A node is a mapping with ``_target_``, the import path of a class, and its arguments. Nodes come
from configs and from artefacts of strangers, so a target is looked up only inside the allow-list,
must be a class that is defined there, and its arguments are held against its signature before it
is called.
"""

from __future__ import annotations

import collections.abc
import importlib
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union

from ensemble_kd.errors import UserError, nearest

Node = Mapping[str, Any]
"""A constructor node: ``_target_`` and plain arguments, nested nodes among them."""

ALLOWED = ("ensemble_kd", "torch.nn", "torch.optim", "pytorch_lightning", "torchmetrics")
"""Packages whose classes a node may name; a user adds others with ``allow=[package]``."""

_CONTROL_KEYS = {"_target_", "_partial_", "_recursive_", "_convert_"}


def build(node: Any, key: str, allow: Sequence[str] = ()) -> Any:
    """Instantiate a node and everything nested in it.

    Args:
        node: a node, or a list or mapping of nodes; anything else is returned as it is.
        key: where the node stands in the configuration, for messages.
        allow: packages beside ``ALLOWED`` whose classes and functions may be called.

    Returns:
        The object, a list or dict of objects, or a partial where the node says ``_partial_``.

    Raises:
        UserError: a target outside the allow-list, or an argument that its target does not take.
    """
    if not isinstance(node, Mapping | list | tuple):
        return node
    check(node, key, allow)
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    plain = dict(node) if isinstance(node, Mapping) else list(node)
    try:
        return instantiate(plain, _convert_="all")
    except InstantiationException as failure:
        raise _explained(failure, key) from failure


def check(node: Any, key: str, allow: Sequence[str] = ()) -> None:
    """Hold a node and all that is nested in it against the allow-list and the signatures.

    Raises:
        UserError: the first thing that is wrong, with its key.
    """
    if isinstance(node, Mapping):
        for name, value in node.items():
            check(value, f"{key}.{name}", allow)
        if "_target_" in node:
            _check_call(node, key, allow)
    elif isinstance(node, list | tuple):
        for number, value in enumerate(node):
            check(value, f"{key}[{number}]", allow)
    elif isinstance(node, str) and "${" in node:
        raise UserError(f"{key}: expected a plain value, got the interpolation {node!r}")


def locate(path: Any, key: str, allow: Sequence[str] = ()) -> Callable[..., Any]:
    """The class that a ``_target_`` names.

    Raises:
        UserError: not a dotted path, not on the allow-list, not there, or not a class.
    """
    packages = (*ALLOWED, *allow)
    inside = isinstance(path, str) and any(path.startswith(f"{name}.") for name in packages)
    if not inside or any(not part.isidentifier() for part in path.split(".")):
        raise UserError(
            f"{key}._target_: expected a class of {', '.join(packages)}, got {path!r}"
            " (allow=[package] adds a package)"
        )
    found = _find(path, key)
    home = getattr(found, "__module__", None) or ""
    by_user = any(f"{path}.".startswith(f"{name}.") for name in allow)
    if not (inspect.isclass(found) or (by_user and inspect.isfunction(found))):
        raise UserError(f"{key}._target_: expected a class, got {path!r}, which is none")
    # A path may lead through one module into another (ensemble_kd.run.os...): what counts is the
    # module in which the class was defined.
    if not any(f"{home}.".startswith(f"{name}.") for name in packages):
        raise UserError(f"{key}._target_: {path!r} is defined in {home!r}, which is not allowed")
    return typing.cast(Callable[..., Any], found)


def _find(path: str, key: str) -> Any:
    parts = path.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        module_name = ".".join(parts[:cut])
        try:
            found: Any = importlib.import_module(module_name)
        except ModuleNotFoundError as missing:
            if missing.name is not None and f"{module_name}.".startswith(f"{missing.name}."):
                continue
            raise UserError(
                f"{key}._target_: {path} needs the package {missing.name!r}: install it"
            ) from missing
        for number, part in enumerate(parts[cut:], start=cut):
            if part.startswith("_") or not hasattr(found, part):
                where = ".".join(parts[:number])
                known = [name for name in dir(found) if not name.startswith("_")]
                raise UserError(
                    f"{key}._target_: {where} has no {part!r}{nearest(part, known[:200])}"
                )
            found = getattr(found, part)
        return found
    raise UserError(f"{key}._target_: no module {parts[0]!r} to find {path!r} in")


def _check_call(node: Node, key: str, allow: Sequence[str]) -> None:
    target = locate(node["_target_"], key, allow)
    name = getattr(target, "__name__", str(target))
    parameters = inspect.signature(target).parameters
    free = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    given = {k: v for k, v in node.items() if k not in _CONTROL_KEYS}
    for argument in given:
        if argument not in parameters and not free:
            hint = nearest(argument, parameters)
            raise UserError(f"{key}.{argument}: {name} takes no such argument{hint}")
    if not node.get("_partial_"):
        for parameter in parameters.values():
            required = parameter.default is parameter.empty and parameter.kind in (
                parameter.POSITIONAL_OR_KEYWORD,
                parameter.KEYWORD_ONLY,
            )
            if required and parameter.name not in given:
                raise UserError(f"{key}.{parameter.name}: {name} needs it, got nothing")
    hints = _hints(target)
    for argument, value in given.items():
        hint_type = hints.get(argument, Any)
        if not _fits(value, hint_type, f"{key}.{argument}", allow):
            raise UserError(f"{key}.{argument}: expected {_words(hint_type)}, got {value!r}")


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    """The types that a class or function declares for its arguments, as far as they resolve."""
    called = target.__init__ if inspect.isclass(target) else target
    try:
        return typing.get_type_hints(called)
    except (NameError, TypeError, AttributeError):
        return {}


def _fits(value: Any, hint: Any, key: str, allow: Sequence[str]) -> bool:
    """Whether a plain value or a node can be what a type hint asks for; unknown hints admit all."""
    if hint is Any:
        return True
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, option, key, allow) for option in arguments)
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
            _fits(item, inner, key, allow) for item in value
        )
    if container in (dict, collections.abc.Mapping):
        inner = arguments[1] if len(arguments) == 2 else Any
        return isinstance(value, Mapping) and all(
            _fits(item, inner, key, allow) for item in value.values()
        )
    if inspect.isclass(hint) and hint is not Path:
        return isinstance(value, hint)
    return origin is not collections.abc.Callable


def _makes(node: Node, hint: Any, key: str, allow: Sequence[str]) -> bool:
    """Whether what a nested node constructs is an instance of a hinted class."""
    if not inspect.isclass(hint) or node.get("_partial_") or getattr(hint, "_is_protocol", False):
        return True
    made = locate(node["_target_"], key, allow)
    if hint in (dict, list, tuple, collections.abc.Mapping, collections.abc.Sequence):
        return hint in (dict, collections.abc.Mapping)
    return not inspect.isclass(made) or issubclass(made, hint)


def _words(hint: Any) -> str:
    """A type hint as a reader would say it."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_words(option) for option in arguments)
    if origin is Literal:
        return "one of " + ", ".join(repr(option) for option in arguments)
    if hint in (None, type(None)):
        return "null"
    if origin in (list, tuple, collections.abc.Sequence):
        return f"a list of {_words(arguments[0])}" if arguments else "a list"
    if origin in (dict, collections.abc.Mapping):
        return "a mapping"
    plain = {int: "an integer", float: "a number", str: "text", bool: "true or false"}
    return plain.get(hint, getattr(hint, "__name__", str(hint)))


def _explained(failure: Exception, key: str) -> Exception:
    """The error of a constructor, with the key of the node that called it."""
    cause = failure.__cause__
    while cause is not None and cause.__cause__ is not None and not isinstance(cause, UserError):
        cause = cause.__cause__
    if isinstance(cause, UserError):
        return cause
    nested = str(failure).rpartition("full_key: ")[2].strip() if "full_key" in str(failure) else ""
    where = f"{key}.{nested}" if nested else key
    if isinstance(cause, ValueError | TypeError | RuntimeError | MemoryError | OverflowError):
        return UserError(f"{where}: {' '.join(str(cause).split())}")
    return failure
