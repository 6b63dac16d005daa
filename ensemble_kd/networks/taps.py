"""Taps: features of any network, by module path, caught by hooks that live for one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules import activation

from ensemble_kd.errors import UserError, nearest
from ensemble_kd.networks.compiled import compiled_forward
from ensemble_kd.networks.prepared import inside
from ensemble_kd.types import Output, Tokens, as_output

POOLED = ".pooled"
"""Ends the name of a tap whose feature is averaged over its places or tokens."""

FIRST = ".first"
"""Ends the name of a tap whose feature is that of the first token, such as [CLS]."""

INPUT = ".input"
"""Ends the name of a tap that takes what goes into its module, not what comes out of it."""

PREACTIVATION = ".preactivation"
"""Ends the name of a tap that takes what goes into the activation with which its module ends."""

ACTIVATIONS = tuple(
    getattr(activation, name)
    for name in activation.__all__
    if name != "MultiheadAttention" and "oftmax" not in name
)
"""The modules that count as activations."""


class Tap(NamedTuple):
    """Where a feature is taken.

    Attributes:
        name: as it stands in a configuration; the key of the feature.
        path: of the module.
        side: ``input``, ``output`` or ``preactivation``.
        kept: ``pooled`` where the feature is averaged over its places or tokens, ``first`` where it
            is that of the first token, nothing for all of it.
    """

    name: str
    path: str
    side: str
    kept: str


def listen(network: nn.Module, inputs: Any, taps: Sequence[str] = ()) -> Output:
    """What a network says of a batch, with the features at its taps.

    The hooks live for this call only: networks stay free to be copied, and nothing is left behind,
    also when the network fails. Of a module that runs several times, the last time counts. A
    network that ``torch.compile`` has wrapped is run as it was before, since compiled code does not
    call hooks; one that is compiled while it learns (``compiling``) is compiled with them.

    Args:
        network: the network.
        inputs: a batch of inputs.
        taps: paths of modules, such as ``stages.2``. The feature is the output of the module;
            with ``stages.2.input`` its first input, with ``stages.2.preactivation`` what goes into
            the activation that gives its output. With ``.pooled`` behind any of these, a map
            (b, d, h, w) is averaged over its places and a sequence (b, l, d) over its tokens, of
            texts over those that are no padding; with ``.first`` a sequence is its first token.

    Raises:
        UserError: a path leads to no module, or the module did not run or gave no tensor, or its
            output is not that of an activation, or cannot be pooled.
    """
    if not taps:
        return as_output(network(inputs))
    network = getattr(network, "_orig_mod", network)
    own = inside(network)
    modules = {name: module for name, module in own.named_modules() if name}
    asked = [_tap(own, name, modules) for name in taps]

    def attach(caught: dict[str, Any]) -> ExitStack:
        with ExitStack() as hooks:
            for tap in asked:
                _hook(hooks, tap, modules, caught)
            return hooks.pop_all()

    compiled = compiled_forward(network)
    if compiled is not None and torch.is_grad_enabled():
        returned, caught = compiled.listen(inputs, tuple(taps), attach)
    else:
        caught = {}
        with attach(caught):
            returned = network(inputs)
    said = as_output(returned)
    # What prepares its inputs may see other tokens, and other padding.
    mask = inputs.mask if isinstance(inputs, Tokens) and own is network else None
    features = {tap.name: _feature(own, tap, caught, mask) for tap in asked}
    return Output(said.logits, {**said.features, **features})


def _tap(network: nn.Module, name: str, modules: Mapping[str, nn.Module]) -> Tap:
    if name in modules:
        return Tap(name, name, "output", "")
    kept = next((end for end in (POOLED, FIRST) if name.endswith(end)), "")
    path = name.removesuffix(kept)
    side = next((end for end in (INPUT, PREACTIVATION) if path.endswith(end)), "")
    path = path.removesuffix(side)
    if path not in modules:
        raise UserError(
            f"layer {name!r}: {type(network).__name__} has no module {path!r}"
            f"{nearest(path, modules)}"
        )
    return Tap(name, path, side.removeprefix(".") or "output", kept.removeprefix("."))


def _hook(
    hooks: ExitStack, tap: Tap, modules: Mapping[str, nn.Module], caught: dict[str, Any]
) -> None:
    module = modules[tap.path]
    if tap.side == "input":
        entered = module.register_forward_pre_hook(partial(_entered, tap.name, caught))
        hooks.callback(entered.remove)
        return
    if tap.side == "preactivation":
        before: dict[str, Any] = {}
        for part in module.modules():
            if isinstance(part, ACTIVATIONS):
                entered = part.register_forward_pre_hook(partial(_entered, "input", before))
                hooks.callback(entered.remove)
                hooks.callback(part.register_forward_hook(partial(_activated, before)).remove)
        left = module.register_forward_hook(partial(_ended, tap.name, before, caught))
    else:
        left = module.register_forward_hook(partial(_left, tap.name, caught))
    hooks.callback(left.remove)


def _entered(name: str, caught: dict[str, Any], module: nn.Module, given: tuple[Any, ...]) -> None:
    caught[name] = _copied(given[0]) if given else None


def _left(
    name: str, caught: dict[str, Any], module: nn.Module, given: tuple[Any, ...], output: Any
) -> None:
    caught[name] = _copied(output)


def _activated(
    before: dict[str, Any], module: nn.Module, given: tuple[Any, ...], output: Any
) -> None:
    before["output"] = output


def _ended(
    name: str,
    before: dict[str, Any],
    caught: dict[str, Any],
    module: nn.Module,
    given: tuple[Any, ...],
    output: Any,
) -> None:
    # The very tensor: what is computed from an activation's output is no activation's output.
    caught[name] = before["input"] if before.get("output") is output else None
    before.clear()


def _copied(value: Any) -> Any:
    # The next module may change the tensor in place, as many activations do.
    return value.clone() if isinstance(value, Tensor) else value


def _feature(
    network: nn.Module, tap: Tap, caught: Mapping[str, Any], mask: Tensor | None
) -> Tensor:
    owner = f"layer {tap.name!r} of {type(network).__name__}"
    feature = caught.get(tap.name)
    if tap.side == "preactivation" and tap.name in caught and feature is None:
        raise UserError(
            f"{owner}: expected a module whose output is that of an activation, got one whose "
            "output is something else: name the activation, with .input"
        )
    if not isinstance(feature, Tensor):
        found = type(feature).__name__ if tap.name in caught else "nothing, for it never ran"
        raise UserError(f"{owner}: expected a tensor, got {found}")
    if not tap.kept:
        return feature
    shape = f"got a tensor of shape (b, {', '.join(map(str, feature.shape[1:]))})"
    if tap.kept == "first":
        if feature.ndim != 3:
            raise UserError(f"{owner}: expected a sequence (b, l, d) with a first token, {shape}")
        return feature[:, 0]
    if feature.ndim not in (3, 4):
        raise UserError(
            f"{owner}: expected a map (b, d, h, w) or a sequence (b, l, d) to pool, {shape}"
        )
    if feature.ndim == 4:
        return feature.mean(dim=(2, 3))
    if mask is not None and mask.shape == feature.shape[:2]:
        counted = torch.where(mask.unsqueeze(2), feature, 0.0).sum(dim=1)
        return counted / mask.sum(dim=1, keepdim=True).clamp(min=1)
    return feature.mean(dim=1)
