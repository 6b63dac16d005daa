"""The last feature map of a convolutional network: where it is, and what it says of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ensemble_kd.errors import UserError, nearest
from ensemble_kd.types import Output, as_output


class FeatureMap(NamedTuple):
    """A module whose output is a feature map.

    Attributes:
        layer: its path in the network.
        channels: channels of the map.
    """

    layer: str
    channels: int


def find_feature_map(
    network: nn.Module, inputs: Sequence[int], layer: str | None = None
) -> FeatureMap:
    """Find the last feature map of a network, or look at the one that is named.

    The last map is the output of the last convolution that runs, after whatever follows it without
    changing its shape (BatchNorm, activation, the end of a block). Convolutions whose output has a
    single place are taken for classifiers, unless there are no others.

    Args:
        network: the network; it is run once, in eval mode, on zeros, and left as it was.
        inputs: shape of one sample.
        layer: path of the module whose output is the map; found if not given.

    Raises:
        UserError: no such module, its output is no map, or the network has no convolution.
    """
    modules = {name: module for name, module in network.named_modules() if name}
    if layer is not None and layer not in modules:
        raise UserError(
            f"layers: {type(network).__name__} has no module {layer!r}{nearest(layer, modules)}"
        )
    outputs = _outputs(network, modules, inputs)
    if layer is not None:
        said = [shape for name, shape in outputs if name == layer]
        if not said or len(said[-1]) != 4:
            found = (
                f"a tensor of shape (b, {', '.join(map(str, said[-1][1:]))})" if said else "nothing"
            )
            raise UserError(
                f"layers: expected a module of {type(network).__name__} that gives feature maps "
                f"(b, channels, height, width), got {layer!r}, which gives {found}"
            )
        return FeatureMap(layer, said[-1][1])
    maps = [(name, shape) for name, shape in outputs if len(shape) == 4]
    convolved = [shape for name, shape in maps if isinstance(modules[name], nn.Conv2d)]
    if not convolved:
        raise UserError(
            f"layers: expected a convolutional network with feature maps, got "
            f"{type(network).__name__}, which has none"
        )
    wide = [shape for shape in convolved if shape[2] * shape[3] > 1]
    last = (wide or convolved)[-1]
    return FeatureMap(next(name for name, shape in reversed(maps) if shape == last), last[1])


def with_feature_map(network: nn.Module, inputs: Any, layer: str) -> tuple[Output, Tensor]:
    """What a network says of a batch, and the feature map (b, d, h, w) on its way there.

    The hook that catches the map lives for this call only, so that networks stay free to be copied.

    Args:
        network: the network.
        inputs: a batch of inputs.
        layer: path of the module whose output is the map.
    """
    caught: list[Tensor] = []
    module = network.get_submodule(layer)
    handle = module.register_forward_hook(lambda module, given, output: caught.append(output))
    try:
        said = as_output(network(inputs))
    finally:
        handle.remove()
    return said, caught[-1]


def _outputs(
    network: nn.Module, modules: dict[str, nn.Module], inputs: Sequence[int]
) -> list[tuple[str, tuple[int, ...]]]:
    """Path and output shape of every module that gives a tensor, in the order in which they end."""
    ended: list[tuple[str, tuple[int, ...]]] = []

    def note(name: str, module: nn.Module, given: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            ended.append((name, tuple(output.shape)))

    handles = [
        module.register_forward_hook(partial(note, name)) for name, module in modules.items()
    ]
    modes = [(module, module.training) for module in network.modules()]
    like = next(network.parameters(), torch.zeros(()))
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(2, *inputs, dtype=like.dtype, device=like.device))
    except (RuntimeError, TypeError, ValueError) as failure:
        raise UserError(
            f"{type(network).__name__} fails on samples of shape {tuple(inputs)}: "
            f"{' '.join(str(failure).split())}"
        ) from failure
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes:
            module.training = training
    return ended
