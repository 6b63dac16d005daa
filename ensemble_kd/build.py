"""From a constructor node to an object, and the only place where that happens.

A node is a mapping with ``_target_``, the import path of a class, and its arguments. Nodes come
from configs and from artefacts of strangers, so a target is looked up only inside the allow-list,
must be a class of those that are meant for nodes (``targets``), and its arguments are held against
its signature, all this before the first one is called.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from ensemble_kd.errors import UserError, nearest
from ensemble_kd.given_files import one_line
from ensemble_kd.signatures import fits, hints_of, words
from ensemble_kd.targets import (
    ALLOWED,
    LIBRARIES,
    Node,
    expect_nothing_fetched,
    locate,
    within,
)

__all__ = ["ALLOWED", "Node", "build", "check", "check_network", "locate"]

_CONTROL_KEYS = {"_target_", "_partial_", "_recursive_", "_convert_"}
_REFUSALS = (ValueError, TypeError, RuntimeError, MemoryError, OverflowError, OSError)
_CONVERSIONS = ("none", "partial", "object", "all")


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
        _check_control_keys(node, key)
        for name, value in node.items():
            check(value, f"{key}.{name}", allow)
        if "_target_" in node:
            _check_call(node, key, allow)
    elif isinstance(node, list | tuple):
        for number, value in enumerate(node):
            check(value, f"{key}[{number}]", allow)
    elif isinstance(node, str) and "${" in node:
        raise UserError(f"{key}: expected a plain value, got the interpolation {node!r}")


def check_network(node: Any, key: str, allow: Sequence[str] = ()) -> None:
    """Hold the node of a network that came from elsewhere against what such a node may do.

    It makes networks out of networks and plain values: no class of another kind is constructed,
    even one that a configuration may name, and no file is read or fetched for it.

    Raises:
        UserError: the first thing that is wrong, with its key.
    """
    if isinstance(node, Mapping):
        for name, value in node.items():
            check_network(value, f"{key}.{name}", allow)
        if "_target_" in node:
            made = locate(node["_target_"], key, allow)
            # Networks of transformers are made from a configuration of theirs.
            if not within(made.__module__, ("transformers.models", *allow)):
                if not (inspect.isclass(made) and issubclass(made, nn.Module)):
                    raise UserError(f"{key}: expected a network, got {node['_target_']}")
                for name in getattr(made, "begins_with", ()):
                    if isinstance(node.get(name), str):
                        raise UserError(
                            f"{key}.{name}: expected null, for the weights of an artefact lie "
                            f"beside it, got {node[name]!r}"
                        )
    elif isinstance(node, list | tuple):
        for number, value in enumerate(node):
            check_network(value, f"{key}[{number}]", allow)


def _check_control_keys(node: Node, key: str) -> None:
    """What Hydra reads itself, with or without a ``_target_`` beside it."""
    for name in ("_partial_", "_recursive_"):
        if not isinstance(node.get(name, False), bool):
            raise UserError(f"{key}.{name}: expected true or false, got {node[name]!r}")
    if node.get("_convert_", "all") not in _CONVERSIONS:
        known = ", ".join(_CONVERSIONS)
        raise UserError(f"{key}._convert_: expected one of {known}, got {node['_convert_']!r}")


def _check_call(node: Node, key: str, allow: Sequence[str]) -> None:
    target = locate(node["_target_"], key, allow)
    name = getattr(target, "__name__", str(target))
    try:
        parameters = inspect.signature(target).parameters
    except ValueError as failure:
        raise UserError(f"{key}._target_: {name} cannot be called: {failure}") from failure
    free = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    given = {k: v for k, v in node.items() if k not in _CONTROL_KEYS}
    if within(target.__module__, LIBRARIES) and not within(target.__module__, allow):
        expect_nothing_fetched(given, key)
    for argument in given:
        if argument == "_args_":
            raise UserError(f"{key}._args_: expected arguments by name")
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
    hints = hints_of(target)
    for argument, value in given.items():
        hint_type = hints.get(argument, Any)
        if not fits(value, hint_type, f"{key}.{argument}", allow):
            raise UserError(f"{key}.{argument}: expected {words(hint_type)}, got {value!r}")


def _explained(failure: Exception, key: str) -> Exception:
    """The error of a constructor, with the key of the node that called it."""
    cause = failure.__cause__
    while cause is not None and cause.__cause__ is not None and not isinstance(cause, UserError):
        cause = cause.__cause__
    if isinstance(cause, UserError):
        return cause
    nested = str(failure).rpartition("full_key: ")[2].strip() if "full_key" in str(failure) else ""
    where = f"{key}.{nested}" if nested else key
    # What other libraries raise for a wrong argument may be anything; here it would be a mistake.
    ours = f"call to target '{__package__}." in str(failure)
    if isinstance(cause, _REFUSALS if ours else Exception):
        return UserError(f"{where}: {one_line(cause, 1000)}")
    return failure
