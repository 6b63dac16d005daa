"""What an object is, as a digest: the weights, and everything else that decides what it does."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import sys
import types
import uuid
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

VERSIONED = (
    *("ensemble_kd", "torch", "pytorch_lightning", "torchmetrics"),
    *sys.stdlib_module_names,
)
"""Packages whose code is known by other means: a digest of its own, or a version."""


def module_digest(module: nn.Module) -> str:
    """sha256 of a module, in hex: classes and their code, structure, attributes, weights, buffers.

    What is shared or refers back is named by the place where it was met first, so tied weights
    differ from equal ones. An attribute that cannot be described (an open file, a lambda) makes
    the digest another one each time: such a module is never taken for one that was seen before.
    """
    said = hashlib.sha256()
    for line in _described(module, {}):
        said.update(line)
        said.update(b"\n")
    return said.hexdigest()


@functools.cache
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


def foreign_code(objects: Iterable[Any]) -> dict[str, str]:
    """Digests of the packages, beside the versioned ones, in which the classes of objects are."""
    packages = {type(each).__module__.partition(".")[0] for each in objects} - set(VERSIONED)
    return {package: code_digest(package) for package in sorted(packages)}


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


def _described(value: Any, met: dict[int, Any]) -> Iterator[bytes]:
    """Lines that say what a value is; ``met`` keeps what was described, alive and in order."""
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        yield repr(value).encode()
    elif isinstance(value, torch.dtype | torch.device | torch.Size):
        yield str(value).encode()
    elif isinstance(value, type | types.BuiltinFunctionType | types.FunctionType):
        yield _named(value)
    elif isinstance(value, weakref.ref):  # as nn.LSTM refers to its own weights
        yield from _described(value(), met)
    elif id(value) in met:
        yield f"met as number {list(met).index(id(value))}".encode()
    else:
        met[id(value)] = value
        yield _named(type(value))
        yield from _inside(value, met)


def _inside(value: Any, met: dict[int, Any]) -> Iterator[bytes]:
    if isinstance(value, Tensor):
        tensor = value.detach().cpu().contiguous()
        yield f"{tensor.dtype} {tuple(tensor.shape)}".encode()
        yield tensor.view(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _described(key, met)
            yield from _described(item, met)
    elif isinstance(value, Sequence):
        yield str(len(value)).encode()
        for item in value:
            yield from _described(item, met)
    elif isinstance(value, set | frozenset):
        yield repr(sorted(map(repr, value))).encode()
    elif isinstance(value, functools.partial):
        yield from _described((value.func, value.args, value.keywords), met)
    elif hasattr(value, "__dict__"):
        for name, item in sorted(vars(value).items()):
            # Whether a module trains now, and who listens to it, is not what it is.
            if name != "training" and not (name.startswith("_") and "hook" in name):
                yield name.encode()
                yield from _described(item, met)
    else:
        yield uuid.uuid4().bytes


def _named(kind: Any) -> bytes:
    """The import path of a class or function, and the code of its package."""
    path = f"{kind.__module__}.{kind.__qualname__}"
    if "<" in path or not kind.__module__:
        return uuid.uuid4().bytes  # nobody else finds it under this name
    package = path.partition(".")[0]
    if package == "__main__":
        return uuid.uuid4().bytes  # a notebook may say something else under this name next time
    return (path if package in VERSIONED else f"{path} {code_digest(package)}").encode()
