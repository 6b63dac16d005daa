"""MobileNetV2 for small images."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from ensemble_kd.networks.arguments import at_least, image_shape
from ensemble_kd.networks.blocks import Residual, activated, global_average, normalised
from ensemble_kd.networks.initialise import initialise, small_classifier
from ensemble_kd.networks.scaling import check_scale

_STAGES = ((16, 1, 1), (24, 2, 1), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))
"""Channels at width 1, blocks and stride of each stage."""


class MobileNetV2(nn.Sequential):
    """Inverted residual blocks: widen, convolve each channel on its own, narrow without activation.

    Children, run one after the other: ``stem``, ``stages`` (``stages.0`` to ``stages.6``),
    ``head``, ``pool``, ``classifier``.

    Source: Sandler et al., MobileNetV2 (arXiv 1801.04381), table 2, in the form of the distillation
    benchmarks for 32x32 images (RepDistiller, models/mobilenetv2.py at b13aecc), which deviates:
    the second stage does not halve, activations are ReLU instead of ReLU6, channels are rounded
    down instead of to multiples of eight, and the blocks of the first stage have a widening
    convolution too, although they do not widen.

    Parameters at width 0.5: 812,836 with 100 classes; with 1,000 classes 1,965,736, which is the
    1,964,736 that osmr/imgclsmob publishes for MobileNetV2 x0.5 plus the bias of the classifier.

    Args:
        inputs: shape of one image, (channels, height, width).
        classes: number of classes.
        width: factor of the channels, > 0; the head has 1,280 channels up to width 1.
        expansion: by which factor the blocks widen, in all stages but the first.
        scale: factor of ``width``, which it may not take below 1/16.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        inputs: Sequence[int],
        classes: int,
        width: float = 0.5,
        expansion: int = 6,
        scale: float = 1.0,
    ) -> None:
        channels, _, _ = image_shape(inputs)
        at_least(2, classes=classes)
        at_least(1, expansion=expansion)
        factor = width * check_scale(scale)
        if not 1 / 16 <= factor < float("inf"):
            raise ValueError(f"width must be >= 1/16, got {factor}")
        first = before = int(32 * factor)
        stages = []
        for number, (base, blocks, stride) in enumerate(_STAGES):
            after = int(base * factor)
            wider = 1 if number == 0 else expansion
            stage = [_block(before, after, stride, wider)]
            stage += [_block(after, after, 1, wider) for _ in range(blocks - 1)]
            stages.append(nn.Sequential(*stage))
            before = after
        last = int(1280 * max(factor, 1.0))
        classifier = nn.Linear(last, classes)
        super().__init__(
            OrderedDict(
                stem=activated(channels, first, 3, 2),
                stages=nn.Sequential(*stages),
                head=activated(before, last, 1),
                pool=global_average(),
                classifier=classifier,
            )
        )
        self.inputs = tuple(inputs)
        self.classes = classes
        self.width = width
        self.expansion = expansion
        self.scale = scale
        initialise(self)
        small_classifier(classifier)


def _block(before: int, after: int, stride: int, expansion: int) -> nn.Module:
    inside = before * expansion
    branch = nn.Sequential(
        OrderedDict(
            widen=activated(before, inside, 1),
            depthwise=activated(inside, inside, 3, stride, groups=inside),
            narrow=normalised(inside, after, 1),
        )
    )
    return Residual(branch) if stride == 1 and before == after else branch
