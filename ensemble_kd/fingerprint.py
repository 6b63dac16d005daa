"""What an object is, as a digest: the weights, and everything else that decides what it does."""

from __future__ import annotations

import hashlib
import importlib.util
import types
import uuid
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

VERSIONED = ("ensemble_kd", "torch", "pytorch_lightning", "torchmetrics", "builtins")
"""Packages whose code is known by other means: a digest of its own, or a version."""


def module_digest(module: nn.Module) -> str:
    """sha256 of a module, in hex: classes and their code, structure, attributes, weights, buffers.

    An attribute that cannot be described (an open file, a lambda of somewhere) makes the digest
    another one each time: such a module is never taken for one that was seen before.
    """
    said = hashlib.sha256()
    for line in _module(module):
        said.update(line)
        said.update(b"\n")
    return said.hexdigest()


@cache
def code_digest(package: str) -> str:
    """sha256 over the source files of a package or module, in hex; over its name without any."""
    said = hashlib.sha256(package.encode())
    for file in _sources(package):
        said.update(file.read_bytes())
    return said.hexdigest()


def foreign_packages(node: Any) -> set[str]:
    """The packages beside the versioned ones that the ``_target_``s of a node lead to."""
    if isinstance(node, Mapping):
        named = {str(node["_target_"]).partition(".")[0]} if node.get("_target_") else set()
        return (named - set(VERSIONED)).union(*map(foreign_packages, node.values()))
    if isinstance(node, list | tuple):
        return set().union(*map(foreign_packages, node))
    return set()


def _sources(package: str) -> list[Path]:
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        return []
    if spec.submodule_search_locations:
        return sorted(
            f for where in spec.submodule_search_locations for f in Path(where).rglob("*.py")
        )
    return [Path(spec.origin)] if spec.origin and Path(spec.origin).is_file() else []


def _module(module: nn.Module) -> Iterator[bytes]:
    for path, part in module.named_modules():
        yield f"{path}: {_class(type(part))}".encode()
        for name, value in sorted(vars(part).items()):
            if name == "training" or name == "_modules" or "hooks" in name:
                continue
            yield f"{path}.{name}".encode()
            yield from _described(value)


def _described(value: Any) -> Iterator[bytes]:
    if isinstance(value, Tensor):
        tensor = value.detach().cpu().contiguous()
        yield f"{tensor.dtype} {tuple(tensor.shape)}".encode()
        yield tensor.view(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, nn.Module):
        yield from _module(value)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield repr(key).encode()
            yield from _described(item)
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        yield f"{type(value).__name__} of {len(value)}".encode()
        for item in value:
            yield from _described(item)
    elif isinstance(value, set | frozenset):
        yield repr(sorted(map(repr, value))).encode()
    elif value is None or isinstance(value, bool | int | float | complex | str | bytes):
        yield repr(value).encode()
    elif isinstance(value, torch.dtype | torch.device | torch.Size):
        yield str(value).encode()
    elif isinstance(value, type):
        yield _class(value).encode()
    elif isinstance(value, types.BuiltinFunctionType | types.FunctionType) and _importable(value):
        yield f"{_class(value)}".encode()
    elif hasattr(value, "__dict__") and not callable(value):
        yield _class(type(value)).encode()
        yield from _described(vars(value))
    elif hasattr(value, "__dict__") and "ensemble_kd" in type(value).__module__:
        yield _class(type(value)).encode()  # a schedule, for instance
        yield from _described(vars(value))
    else:
        yield uuid.uuid4().bytes


def _class(kind: Any) -> str:
    """The import path of a class or function, and the code of its package."""
    package = kind.__module__.partition(".")[0]
    code = "" if package in VERSIONED else code_digest(package)
    return f"{kind.__module__}.{kind.__qualname__} {code}"


def _importable(function: Any) -> bool:
    return "<" not in function.__qualname__ and bool(function.__module__)
