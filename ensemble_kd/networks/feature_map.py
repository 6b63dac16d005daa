"""The last feature map of a convolutional network: where it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import nn

from ensemble_kd.errors import UserError, nearest
from ensemble_kd.networks.prepared import inside
from ensemble_kd.networks.shapes import layer_shapes


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
    modules = {name: module for name, module in inside(network).named_modules() if name}
    if layer is not None and layer not in modules:
        raise UserError(
            f"layers: {type(network).__name__} has no module {layer!r}{nearest(layer, modules)}"
        )
    outputs = layer_shapes(network, inputs)
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
