"""Several networks with one classifier on their fused feature maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ensemble_kd.networks.aligned import Aligned
from ensemble_kd.networks.arguments import at_least, sizes
from ensemble_kd.networks.blocks import activated
from ensemble_kd.networks.taps import listen


class Fuser(nn.Module):
    """The fusion module of FFL and its classifier.

    Maps are brought to one shape, concatenated and fused: a depthwise 3x3 convolution, then a 1x1
    convolution to the channels of the first map, each with BatchNorm and ReLU; then global average
    pooling and a linear classifier.

    Source: Kim et al., Feature Fusion for Online Mutual Knowledge Distillation (arXiv 1904.09058),
    section 3.2, in the layers of the authors' code.

    Args:
        channels: channels of each map, in the order in which they are given.
        classes: number of classes.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, channels: Sequence[int], classes: int) -> None:
        super().__init__()
        self.channels = sizes("channels", channels)
        at_least(2, classes=classes)
        self.classes = classes
        width, together = self.channels[0], self.channels[0] * len(self.channels)
        self.aligned = Aligned(self.channels)
        self.depthwise = activated(together, together, groups=together)
        self.pointwise = activated(together, width, kernel=1)
        self.classifier = nn.Linear(width, classes)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps (b, d_k, h_k, w_k), one per network, to logits (b, c)."""
        fused = self.pointwise(self.depthwise(torch.cat(self.aligned(maps), dim=1)))
        logits: Tensor = self.classifier(fused.mean(dim=(2, 3)))
        return logits


class Fused(nn.Module):
    """Networks that classify together, by their fused feature maps.

    Args:
        networks: the networks; their own classifiers run but are not heard.
        layers: for each of them the path of the module whose output is its feature map.
        fuser: classifies the maps.

    Raises:
        ValueError: not one layer per network.
    """

    def __init__(
        self, networks: Sequence[nn.Module], layers: Sequence[str], fuser: nn.Module
    ) -> None:
        super().__init__()
        if len(networks) != len(layers):
            raise ValueError(f"layers must name one module per network, got {list(layers)}")
        self.networks = nn.ModuleList(networks)
        self.layers = tuple(layers)
        self.fuser = fuser

    def forward(self, inputs: Any) -> Tensor:
        """(b, c) logits of a batch of inputs."""
        maps = [
            listen(network, inputs, [layer]).features[layer]
            for network, layer in zip(self.networks, self.layers, strict=True)
        ]
        logits: Tensor = self.fuser(maps)
        return logits
