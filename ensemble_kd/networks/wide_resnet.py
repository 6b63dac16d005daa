"""Wide residual networks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from ensemble_kd.networks.arguments import at_least, image_shape, probability
from ensemble_kd.networks.blocks import Residual, convolution, global_average
from ensemble_kd.networks.initialise import initialise
from ensemble_kd.networks.scaling import scaled


class WideResNet(nn.Sequential):
    """Residual networks whose blocks normalise and activate before they convolve.

    Children, run one after the other: ``stem``, ``stages`` (``stages.0``, ``stages.1``,
    ``stages.2``; in each the blocks), ``activation``, ``pool``, ``classifier``.

    Source: Zagoruyko and Komodakis, Wide Residual Networks (arXiv 1605.07146), blocks B(3, 3) with
    dropout between the convolutions. Where a block changes the shape, branch and shortcut share the
    normalisation and activation, as in the authors' code.

    Parameters: 36,479,194 (WRN-28-10), 2,243,546 (40-2), 17,158,106 (22-8) and 17,116,634 (16-10)
    with 10 classes, 2,255,156 (40-2) with 100, as several public codes report them; the paper's
    table 4 rounds them to 36.5M, 2.2M, 17.2M and 17.1M.

    Args:
        inputs: shape of one image, (channels, height, width).
        classes: number of classes.
        depth: number of layers with weights: 6 n + 4 for three stages of n blocks.
        widen: factor of the widths 16, 32 and 64.
        dropout: share of the feature maps' entries that is dropped in each block while training.
        scale: factor of all channels, those of the stem too, rounded to whole numbers, at least 1.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        inputs: Sequence[int],
        classes: int,
        depth: int = 16,
        widen: int = 2,
        dropout: float = 0.0,
        scale: float = 1.0,
    ) -> None:
        channels, _, _ = image_shape(inputs)
        at_least(2, classes=classes)
        at_least(1, widen=widen)
        probability("dropout", dropout)
        blocks, rest = divmod(depth - 4, 6)
        if rest or blocks < 1:
            raise ValueError(f"depth must be 6 n + 4, such as 10, 16 or 28, got {depth}")
        widths = scaled((16, 16 * widen, 32 * widen, 64 * widen), scale)
        stages = []
        for number in range(3):
            before, after = widths[number], widths[number + 1]
            first = _block(before, after, 1 if number == 0 else 2, dropout)
            others = [_block(after, after, 1, dropout) for _ in range(blocks - 1)]
            stages.append(nn.Sequential(first, *others))
        classifier = nn.Linear(widths[-1], classes)
        super().__init__(
            OrderedDict(
                stem=convolution(channels, widths[0]),
                stages=nn.Sequential(*stages),
                activation=_activation(widths[-1]),
                pool=global_average(),
                classifier=classifier,
            )
        )
        self.inputs = tuple(inputs)
        self.classes = classes
        self.depth = depth
        self.widen = widen
        self.dropout = dropout
        self.scale = scale
        initialise(self)
        nn.init.zeros_(classifier.bias)


def _activation(width: int) -> nn.Sequential:
    return nn.Sequential(OrderedDict(norm=nn.BatchNorm2d(width), relu=nn.ReLU()))


def _block(before: int, after: int, stride: int, dropout: float) -> nn.Sequential:
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    parts["conv1"] = convolution(before, after, 3, stride)
    parts["activation2"] = _activation(after)
    if dropout:
        parts["dropout"] = nn.Dropout(dropout)
    parts["conv2"] = convolution(after, after)
    if stride == 1 and before == after:
        branch = nn.Sequential(OrderedDict(activation1=_activation(before), **parts))
        return nn.Sequential(OrderedDict(residual=Residual(branch)))
    residual = Residual(nn.Sequential(parts), convolution(before, after, 1, stride))
    return nn.Sequential(OrderedDict(activation=_activation(before), residual=residual))
