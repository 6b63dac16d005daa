"""What a ``_target_`` may name: classes of known packages, and which of their classes."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ensemble_kd.errors import UserError, nearest
from ensemble_kd.optional import expect_installed

Node = Mapping[str, Any]
"""A constructor node: ``_target_`` and plain arguments, nested nodes among them."""


class Shelf(NamedTuple):
    """The classes of a package that a node may name.

    Attributes:
        package: the path of a class begins with it.
        homes: parts of it in one of which the class is defined.
        bases: import paths of classes of which it must be one; any class is good where there are
            none.
    """

    package: str
    homes: tuple[str, ...]
    bases: tuple[str, ...] = ()


def _parts(package: str, names: str) -> tuple[str, ...]:
    return tuple(f"{package}.{name}" for name in names.split())


# These packages hold also classes whose constructors download, unpickle, write or run something:
# what is meant for configurations is listed, everything else is not.
SHELVES = (
    Shelf(
        "ensemble_kd",
        _parts(
            "ensemble_kd",
            "callbacks controls corruptions csv_logger data descent distributed.sharding "
            "evaluation loggers metrics networks objectives robustness schedules strategies "
            "teachers weightings",
        ),
    ),
    Shelf("torch.nn", ("torch.nn",), ("torch.nn.Module",)),
    Shelf(
        "torch.optim",
        ("torch.optim",),
        ("torch.optim.Optimizer", "torch.optim.lr_scheduler.LRScheduler"),
    ),
    Shelf(
        "pytorch_lightning",
        _parts(
            "pytorch_lightning",
            "accelerators callbacks loggers plugins profilers strategies trainer.trainer",
        ),
    ),
    Shelf(
        "torchmetrics",
        _parts(
            "torchmetrics",
            "aggregation classification clustering collections nominal regression retrieval "
            "segmentation wrappers",
        ),
        ("torchmetrics.Metric", "torchmetrics.MetricCollection"),
    ),
    Shelf(
        "timm",
        _parts("timm", "layers models optim"),
        ("torch.nn.Module", "torch.optim.Optimizer"),
    ),
    Shelf(
        "transformers",
        _parts("transformers", "models optimization"),
        ("transformers.PreTrainedModel", "transformers.PretrainedConfig", "torch.optim.Optimizer"),
    ),
)

ALLOWED = tuple(shelf.package for shelf in SHELVES)
"""Packages whose classes a node may name; a user adds others with ``allow=[package]``."""

LIBRARIES = ("timm", "transformers")
"""Packages some of whose arguments make them fetch weights or code."""

FETCHING = (
    *("attn_implementation", "experts_implementation", "quantization_config", "auto_map"),
    *(
        "backbone",
        "kernels",
        "kernel_config",
        "pretrained",
        "checkpoint",
        "cache_dir",
        "trust_remote_code",
        "code_",
    ),
)
"""Begin, perhaps after ``use_`` or an underscore, the names of these."""

SCHEMES = ("hf-hub:", "hf_hub:", "local-dir:")
"""Begin the names by which timm means a repository or a folder, in place of one of its networks."""

_COMPUTED = ("eager", "sdpa")
"""How attention is computed by what is installed."""


def locate(path: Any, key: str, allow: Sequence[str] = ()) -> Callable[..., Any]:
    """The class that a ``_target_`` names.

    Args:
        path: its import path.
        key: where the node stands, for messages.
        allow: packages beside ``ALLOWED`` whose classes and functions may be called.

    Raises:
        UserError: not a dotted path, not on the allow-list, not there, or not a class.
    """
    packages = (*ALLOWED, *allow)
    inside = isinstance(path, str) and within(path, packages) and path not in packages
    if not inside or any(not part.isidentifier() for part in path.split(".")):
        raise UserError(
            f"{key}._target_: expected a class of {', '.join(packages)}, got {path!r}"
            " (allow=[package] adds a package)"
        )
    from hydra.utils import get_object

    by_user = within(path, allow)
    if not by_user:
        private = [part for part in path.split(".") if part.startswith("_")]
        if private:
            raise UserError(f"{key}._target_: expected a public class, got {path!r}")
        expect_installed(path, f"{key}._target_")
    found = _find(path, key)
    if get_object(path) is not found:  # Hydra, which instantiates, looks it up in its own way
        raise UserError(f"{key}._target_: expected the one meaning of a path, got {path!r}")
    if not (inspect.isclass(found) or (by_user and inspect.isfunction(found))):
        raise UserError(f"{key}._target_: expected a class, got {path!r}, which is none")
    # A path may lead through one module into another (ensemble_kd.run.os...): what counts is the
    # module in which the class was defined.
    home = getattr(found, "__module__", None) or ""
    if not within(home, allow):
        _expect_on_shelf(found, home, path, key)
    return typing.cast(Callable[..., Any], found)


def expect_nothing_fetched(arguments: Any, key: str) -> None:
    """The arguments of a network of another library must not name code or weights to fetch.

    Args:
        arguments: plain values, mappings and lists among them.
        key: where they stand, for messages.

    Raises:
        UserError: they do.
    """
    if isinstance(arguments, Mapping):
        for name, value in arguments.items():
            plain = str(name).removeprefix("_").removeprefix("use_")
            harmless = value is None or value is False or value in _COMPUTED
            if plain.startswith(FETCHING) and not harmless and value not in ({}, []):
                raise UserError(
                    f"{key}.{name}: expected nothing by which code or weights are fetched, "
                    f"got {value!r}"
                )
            expect_nothing_fetched(value, f"{key}.{name}")
    elif isinstance(arguments, list | tuple):
        for number, value in enumerate(arguments):
            expect_nothing_fetched(value, f"{key}[{number}]")
    elif isinstance(arguments, str) and (arguments.startswith(SCHEMES) or "://" in arguments):
        raise UserError(f"{key}: expected nothing that is fetched or read, got {arguments!r}")


def within(path: str, packages: Sequence[str]) -> bool:
    """Whether an import path is that of one of some packages, or leads into it."""
    return any(f"{path}.".startswith(f"{name}.") for name in packages)


def _expect_on_shelf(found: Any, home: str, path: str, key: str) -> None:
    shelves = [shelf for shelf in SHELVES if within(home, shelf.homes)]
    if not shelves or not inspect.isclass(found):
        raise UserError(f"{key}._target_: {path!r} is defined in {home!r}, which is not allowed")
    kinds = [kind for shelf in shelves for kind in shelf.bases]
    if kinds and not issubclass(found, tuple(map(_base, kinds))):
        names = " or ".join(kind.rpartition(".")[2] for kind in kinds)
        raise UserError(f"{key}._target_: expected a kind of {names}, got {path!r}")


@functools.cache
def _base(path: str) -> type:
    return typing.cast(type, pkgutil.resolve_name(path))


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
