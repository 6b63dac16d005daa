"""ShuffleNetV2 for small images."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ensemble_kd.networks.arguments import at_least, image_shape, sizes
from ensemble_kd.networks.blocks import activated, global_average, normalised
from ensemble_kd.networks.scaling import scaled


class ShuffleNetV2(nn.Sequential):
    """Units that change one half of the channels and shuffle them with the other.

    Children, run one after the other: ``stem``, ``stages`` (``stages.0``, ``stages.1``,
    ``stages.2``; in each the units), ``head``, ``pool``, ``classifier``.

    Source: Ma et al., ShuffleNet V2 (arXiv 1807.11164), figure 3 and table 5, in the form of the
    distillation benchmarks for 32x32 images (RepDistiller, models/ShuffleNetv2.py at eedab9d),
    which deviates: the stem is a 1x1 convolution without stride, and no max pooling follows.

    Parameters at width 1: 1,355,528 with 100 classes; with 1,000 classes 2,278,028, which is the
    published 2,278,604 of torchvision's shufflenet_v2_x1_0 less the 576 of its 3x3 stem.

    Args:
        inputs: shape of one image, (channels, height, width).
        classes: number of classes.
        widths: channels of the stages, even; (48, 96, 192) is the network x0.5, the default x1.
        blocks: units of each stage that keep the shape, after the one that halves height and width.
        first: channels of the first convolution.
        features: channels of the last convolution.
        scale: factor of all these channels; those of the stages become even numbers.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        inputs: Sequence[int],
        classes: int,
        widths: Sequence[int] = (116, 232, 464),
        blocks: Sequence[int] = (3, 7, 3),
        first: int = 24,
        features: int = 1024,
        scale: float = 1.0,
    ) -> None:
        channels, _, _ = image_shape(inputs)
        at_least(2, classes=classes)
        at_least(1, first=first, features=features)
        widths, blocks = sizes("widths", widths), tuple(blocks)
        if any(width % 2 for width in widths):
            raise ValueError(f"widths must be even, got {list(widths)}")
        if len(blocks) != len(widths) or min(blocks) < 0:
            raise ValueError(f"blocks must be {len(widths)} numbers >= 0, got {list(blocks)}")
        stages = []
        stem, head = scaled((first, features), scale)
        before = stem
        for width, count in zip(scaled(widths, scale, multiple=2), blocks, strict=True):
            units = [ChangedHalf(width) for _ in range(count)]
            stages.append(nn.Sequential(Halved(before, width), *units))
            before = width
        super().__init__(
            OrderedDict(
                stem=activated(channels, stem, 1),
                stages=nn.Sequential(*stages),
                head=activated(before, head, 1),
                pool=global_average(),
                classifier=nn.Linear(head, classes),
            )
        )
        self.inputs = tuple(inputs)
        self.classes = classes
        self.widths = widths
        self.blocks = blocks
        self.first = first
        self.features = features
        self.scale = scale


class ChangedHalf(nn.Module):
    """The unit that keeps the shape: the second half of the channels is changed, then all shuffled.

    Args:
        width: number of channels, even.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = _branch(width // 2, width // 2, 1)
        self.shuffle = nn.ChannelShuffle(2)

    def forward(self, inputs: Tensor) -> Tensor:
        """(b, width, h, w) to the same shape."""
        kept, changed = inputs.chunk(2, dim=1)
        said: Tensor = self.shuffle(torch.cat([kept, self.branch(changed)], dim=1))
        return said


class Halved(nn.Module):
    """The unit that halves height and width: both halves of the output are convolved.

    Args:
        before: channels of the input.
        after: channels of the output, even.
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        half = after // 2
        self.shortcut = nn.Sequential(
            OrderedDict(
                depthwise=normalised(before, before, 3, 2, groups=before),
                mix=activated(before, half, 1),
            )
        )
        self.branch = _branch(before, half, 2)
        self.shuffle = nn.ChannelShuffle(2)

    def forward(self, inputs: Tensor) -> Tensor:
        """(b, before, h, w) to (b, after, h / 2, w / 2), rounded up."""
        both = torch.cat([self.shortcut(inputs), self.branch(inputs)], dim=1)
        said: Tensor = self.shuffle(both)
        return said


def _branch(before: int, after: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            mix1=activated(before, after, 1),
            depthwise=normalised(after, after, 3, stride, groups=after),
            mix2=activated(after, after, 1),
        )
    )
