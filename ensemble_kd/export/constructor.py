"""From a network back to the constructor node that makes one like it."""

from __future__ import annotations

import inspect
import pkgutil
from typing import Any

import torch
from torch import nn

_SIMPLE = (bool, int, float, str, type(None))


def constructor_of(module: nn.Module) -> dict[str, Any] | None:
    """The node that constructs a module like this one, read from its attributes.

    This works for a class that keeps each constructor argument in an attribute of the same name, as
    a plain value (a number, text, truth value or None, or lists, tuples and dictionaries of these)
    or as a module, or list of modules, for which the same holds: these become nodes themselves.
    The class is then called with what was found, and the answer is given only if the two modules
    cannot be told apart by state (keys, shapes and types), by structure, or by the plain attributes
    of any of their parts. The generators of random numbers are left as they were.

    Args:
        module: a network.

    Returns:
        ``_target_`` with the import path of the class, and the arguments by name, tuples as lists;
        None when the network cannot be made anew from its attributes.
    """
    try:
        node = _node(module)
    except _UnknownError:
        return None
    # Whatever a stranger's constructor raises: these arguments do not make the module.
    try:
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            again = _made(node)
        same = _node(again) == node and _alike(module, again)
    except Exception:
        return None
    return node if same else None


class _UnknownError(Exception):
    """An argument of a constructor that the object does not tell."""


def _importable(cls: type) -> bool:
    """Whether another process finds the class under its name."""
    if cls.__module__ == "__main__" or "<locals>" in cls.__qualname__:
        return False
    try:
        return pkgutil.resolve_name(_path(cls)) is cls
    except (ImportError, AttributeError, ValueError):
        return False


def _path(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _node(module: nn.Module) -> dict[str, Any]:
    """A module's class and arguments."""
    cls = type(module)
    if not _importable(cls):
        raise _UnknownError(cls)
    return {"_target_": _path(cls), **_arguments(module)}


def _made(node: Any) -> Any:
    """What a node, or a list of nodes, makes; any other value as it is."""
    if isinstance(node, list):
        return [_made(item) for item in node]
    if not isinstance(node, dict) or "_target_" not in node:
        return node
    arguments = {name: _made(value) for name, value in node.items() if name != "_target_"}
    return pkgutil.resolve_name(node["_target_"])(**arguments)


def _arguments(module: nn.Module) -> dict[str, Any]:
    """The constructor's arguments, each read from the attribute of its name."""
    arguments = {}
    attributes = {**vars(module), **module._modules}
    for parameter in inspect.signature(type(module)).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise _UnknownError(parameter.name)
        if parameter.name not in attributes:
            raise _UnknownError(parameter.name)
        arguments[parameter.name] = _plain(attributes[parameter.name])
    return arguments


def _plain(value: Any) -> Any:
    """A value as YAML can hold it and give it back; a module as its node."""
    if isinstance(value, nn.ModuleList):
        return [_node(item) for item in value]
    if isinstance(value, nn.Module):
        return _node(value)
    if type(value) in _SIMPLE:
        # An interpolation would be resolved on the way back, and NaN is not equal to itself.
        if (isinstance(value, str) and "${" in value) or value != value:
            raise _UnknownError(value)
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict) and all(type(key) is str for key in value):
        if "_target_" in value:  # would come back as what it makes
            raise _UnknownError(value)
        return {key: _plain(item) for key, item in value.items()}
    raise _UnknownError(value)


def _alike(one: nn.Module, other: nn.Module) -> bool:
    """Whether two modules agree in all but the values of their weights and buffers."""
    return (
        _state(one) == _state(other)
        and repr(one) == repr(other)
        and _settings(one) == _settings(other)
    )


def _state(module: nn.Module) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (value.shape, value.dtype) for name, value in module.state_dict().items()}


def _settings(module: nn.Module) -> dict[str, Any]:
    """The public plain attributes of all parts, by path."""
    settings = {}
    for path, part in module.named_modules():
        for name, value in vars(part).items():
            if name.startswith("_") or name == "training":
                continue
            try:
                settings[f"{path}.{name}"] = _plain(value)
            except _UnknownError:
                continue
    return settings
