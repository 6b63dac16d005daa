"""Weights from files, and networks that are filled with them."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ensemble_kd.errors import UserError
from ensemble_kd.given_files import is_pickle, offered, one_line, pickled_hint, shortened

WRAPPERS = ("module.", "model.", "network.", "_orig_mod.")
"""Prefixes that DataParallel, Lightning modules and compiled networks put before every name."""


def read_weights(path: str | Path, key: str | None = None, prefix: str = "") -> dict[str, Tensor]:
    """A state dict from a file: safetensors, or what ``torch.save`` wrote of tensors only.

    Args:
        path: the file; nothing but tensors and plain containers is read from it.
        key: under which the state dict lies in what was saved, such as ``state_dict``; parts with
            dots between for a mapping in a mapping.
        prefix: which names begin with; it is taken away, and other names are left out.

    Raises:
        UserError: missing, empty, damaged, holds objects, or holds nothing under ``key`` or
            ``prefix``.
    """
    file = offered(path, "weights", any_bytes=True)
    held = _safetensors(file) if file.suffix.lower() == ".safetensors" else _torch(file)
    state = _state(held, key, file)
    chosen = {
        name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)
    }
    if not chosen:
        raise UserError(
            f"{file}: no name begins with prefix {prefix!r}; there are {shortened(state)}"
        )
    return chosen


def fill(network: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Load all weights and buffers of a network.

    Args:
        network: is filled, in its own types.
        weights: by name.
        where: they come from, for messages.

    Raises:
        UserError: names are missing or too many, or shapes are other ones or not there yet.
    """
    own = network.state_dict()
    shapeless = [name for name, value in own.items() if is_lazy(value)]
    if shapeless:
        raise UserError(
            f"{where}: the weights do not fit {type(network).__name__}: {shortened(shapeless)} get "
            "their shape with a first batch only: say all sizes, without lazy layers"
        )
    places = {value.data_ptr() for name, value in own.items() if name in weights and value.numel()}
    missing = [
        # Files keep one of the names of weights that are tied.
        name
        for name, value in own.items()
        if name not in weights and not (value.numel() and value.data_ptr() in places)
    ]
    unexpected = [name for name in weights if name not in own]
    shapes = [
        f"{name} {tuple(value.shape)} in place of {tuple(own[name].shape)}"
        for name, value in weights.items()
        if name in own and value.shape != own[name].shape
    ]
    found = {"missing": missing, "unexpected": unexpected, "wrong shapes": shapes}
    if any(found.values()):
        told = "; ".join(
            f"{len(names)} {what}: {shortened(names)}" for what, names in found.items() if names
        )
        raise UserError(
            f"{where}: the weights do not fit {type(network).__name__}: {told}"
            f"{_wrapped(weights, own)}"
        )
    network.load_state_dict(dict(weights), strict=False)


def _wrapped(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """A hint where a wrapper put something before all names."""
    for prefix in WRAPPERS:
        if any(name.startswith(prefix) and name[len(prefix) :] in own for name in weights):
            return f"; is it prefix: {prefix!r}?"
    return ""


def _safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, OSError) as failure:
        raise UserError(
            f"{file}: expected safetensors, got a file that is truncated or damaged: "
            f"{one_line(failure)}{pickled_hint(file)}"
        ) from failure


def _torch(file: Path) -> object:
    try:
        held: object = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as failure:  # whatever a damaged file makes of its reader
        if isinstance(failure, pickle.UnpicklingError) or is_pickle(file):
            raise UserError(
                f"{file}: expected a state dict, got a file that holds other objects than tensors "
                "or is damaged; nothing is unpickled: save network.state_dict(), best as "
                "safetensors"
            ) from failure
        raise UserError(
            f"{file}: expected a state dict, got a file that is truncated or damaged: "
            f"{one_line(failure)}"
        ) from failure
    return held


def _state(held: object, key: str | None, file: Path) -> dict[str, Tensor]:
    """The state dict in what a file held."""
    for part in key.split(".") if key else ():
        if not isinstance(held, Mapping) or part not in held:
            known = shortened(held) if isinstance(held, Mapping) else type(held).__name__
            raise UserError(f"{file}: nothing under key {key!r}; there is {known}")
        held = held[part]
    if isinstance(held, Mapping) and held and all(isinstance(v, Tensor) for v in held.values()):
        return {str(name): value for name, value in held.items()}
    nested = (
        [name for name, value in held.items() if isinstance(value, Mapping)]
        if (isinstance(held, Mapping))
        else []
    )
    hint = f"; is it key: {shortened(nested)}?" if nested else ""
    raise UserError(
        f"{file}: expected a state dict, names with tensors, got {type(held).__name__}{hint}"
    )
