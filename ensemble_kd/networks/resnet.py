"""Residual networks for small images."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ensemble_kd.networks.arguments import at_least, image_shape, sizes
from ensemble_kd.networks.blocks import Residual, activated, global_average, normalised
from ensemble_kd.networks.initialise import initialise
from ensemble_kd.networks.scaling import scaled


class ResNet(nn.Sequential):
    """The residual networks for CIFAR, of any depth and width.

    Children, run one after the other: ``stem``, ``stages`` (``stages.0``, ``stages.1``, ...; in
    each the blocks ``stages.0.0``, ...), ``pool``, ``classifier``. A block is ``residual``, whose
    output is the feature before the activation, then ``relu``.

    Source: He et al., Deep Residual Learning for Image Recognition (arXiv 1512.03385), section 4.2.
    The paper's CIFAR networks have widths 16, 16, 32, 64 and shortcuts without parameters
    (``projection=False``). The distillation benchmarks of CRD (arXiv 1910.10699, RepDistiller,
    models/resnet.py at eedab9d) project with a 1x1 convolution and BatchNorm, which is the default
    here; their ResNet-8x4 and 32x4 have widths 32, 64, 128, 256.

    Parameters with 100 classes and projections: 278,324 (ResNet-20), 861,620 (56) and 1,736,564
    (110) as osmr/imgclsmob publishes them, and 7,433,860 for ResNet-32x4, as a user of RepDistiller
    reports; without projections and with 10 classes 0.27M, 0.46M, 0.85M and 1.7M for ResNet-20, 32,
    56 and 110 (the paper's table 6). For ResNet-8, 14 and 8x4 no published figure was found.

    Args:
        inputs: shape of one image, (channels, height, width).
        classes: number of classes.
        depth: number of layers with weights on the longest path: 2 s n + 2 for s stages of n
            blocks, so 6 n + 2 for three stages.
        widths: channels of the stem, then of each stage; each stage but the first halves height and
            width.
        projection: whether a shortcut between different shapes is a 1x1 convolution with BatchNorm;
            else it drops every other row and column and fills the new channels with zeros.
        scale: factor of the channels, rounded to whole numbers, at least 1.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        inputs: Sequence[int],
        classes: int,
        depth: int = 20,
        widths: Sequence[int] = (16, 16, 32, 64),
        projection: bool = True,
        scale: float = 1.0,
    ) -> None:
        channels, _, _ = image_shape(inputs)
        widths = sizes("widths", widths)
        at_least(2, classes=classes)
        if len(widths) < 2:
            raise ValueError(f"widths must be those of the stem and of a stage, got {list(widths)}")
        count = len(widths) - 1
        blocks, rest = divmod(depth - 2, 2 * count)
        if rest or blocks < 1:
            raise ValueError(
                f"depth must be {2 * count} n + 2 for {count} stages, such as {2 * count + 2} or "
                f"{4 * count + 2}, got {depth}"
            )
        stages = []
        channels_of = scaled(widths, scale)
        for number in range(count):
            before, after = channels_of[number], channels_of[number + 1]
            stride = 1 if number == 0 else 2
            first = _block(before, after, stride, projection)
            others = [_block(after, after, 1, projection) for _ in range(blocks - 1)]
            stages.append(nn.Sequential(first, *others))
        super().__init__(
            OrderedDict(
                stem=activated(channels, channels_of[0]),
                stages=nn.Sequential(*stages),
                pool=global_average(),
                classifier=nn.Linear(channels_of[-1], classes),
            )
        )
        self.inputs = tuple(inputs)
        self.classes = classes
        self.depth = depth
        self.widths = widths
        self.projection = projection
        self.scale = scale
        initialise(self)


class PaddedShortcut(nn.Module):
    """A shortcut without parameters between different shapes.

    Source: option A of He et al. (arXiv 1512.03385), section 4.1; the zeros are the last channels.

    Args:
        channels: how many channels are added.
        stride: every which row and column is kept.
    """

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        if channels < 0:
            raise ValueError(f"channels must be >= 0, got {channels}")
        self.channels = channels
        self.stride = stride

    def forward(self, inputs: Tensor) -> Tensor:
        """(b, d, h, w) to (b, d + channels, h / stride, w / stride), rounded up."""
        kept = inputs[:, :, :: self.stride, :: self.stride]
        return F.pad(kept, (0, 0, 0, 0, 0, self.channels))


def _block(before: int, after: int, stride: int, projection: bool) -> nn.Sequential:
    branch = nn.Sequential(activated(before, after, 3, stride), normalised(after, after))
    shortcut: nn.Module | None = None
    if stride > 1 or before != after:
        shortcut = (
            normalised(before, after, 1, stride)
            if projection
            else PaddedShortcut(after - before, stride)
        )
    return nn.Sequential(OrderedDict(residual=Residual(branch, shortcut), relu=nn.ReLU()))
