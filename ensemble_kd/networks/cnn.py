"""A plain convolutional network, small enough for a processor."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from ensemble_kd.networks.arguments import at_least, image_shape, probability, sizes
from ensemble_kd.networks.blocks import activated
from ensemble_kd.networks.scaling import scaled


class Cnn(nn.Sequential):
    """Convolutions with BatchNorm and ReLU, halving height and width between stages.

    Children, run one after the other: ``stages`` (``stages.0``, ``stages.1``, ...), ``pool``,
    ``classifier``.

    Args:
        inputs: shape of one image, (channels, height, width); any size will do.
        classes: number of classes.
        widths: channels of each stage. Each stage but the first begins with a 2x2 max pooling, as
            long as there is something to halve.
        kernel: side of the convolutions, odd.
        grid: side of the grid to which the last feature maps are averaged: 1 is global average
            pooling, 2 keeps a little of where things are, which helps very small networks.
        dropout: share of the features that the classifier misses while training.
        scale: factor of the channels, rounded to whole numbers, at least 1.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        inputs: Sequence[int],
        classes: int,
        widths: Sequence[int] = (16, 32, 64),
        kernel: int = 3,
        grid: int = 1,
        dropout: float = 0.0,
        scale: float = 1.0,
    ) -> None:
        channels, height, width = image_shape(inputs)
        widths = sizes("widths", widths)
        at_least(2, classes=classes)
        at_least(1, kernel=kernel, grid=grid)
        if kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, got {kernel}")
        stages = []
        before, side = channels, min(height, width)
        for number, after in enumerate(scaled(widths, scale)):
            parts: OrderedDict[str, nn.Module] = OrderedDict()
            if number > 0 and side > 1:
                parts["pool"] = nn.MaxPool2d(2)
                side //= 2
            parts.update(activated(before, after, kernel).named_children())
            stages.append(nn.Sequential(parts))
            before = after
        pool = OrderedDict(
            average=nn.AdaptiveAvgPool2d(grid),
            flatten=nn.Flatten(),
            dropout=nn.Dropout(probability("dropout", dropout)),
        )
        super().__init__(
            OrderedDict(
                stages=nn.Sequential(*stages),
                pool=nn.Sequential(pool),
                classifier=nn.Linear(before * grid * grid, classes),
            )
        )
        self.inputs = tuple(inputs)
        self.classes = classes
        self.widths = widths
        self.kernel = kernel
        self.grid = grid
        self.dropout = dropout
        self.scale = scale
