"""VGG networks with BatchNorm for small images."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from ensemble_kd.networks.arguments import at_least, image_shape, sizes
from ensemble_kd.networks.blocks import global_average
from ensemble_kd.networks.initialise import initialise, small_classifier
from ensemble_kd.networks.scaling import scaled


class Vgg(nn.Sequential):
    """Stages of 3x3 convolutions with BatchNorm and ReLU, and a single linear classifier.

    Children, run one after the other: ``stages`` (``stages.0``, ``stages.1``, ...), ``pool``,
    ``classifier``.

    Source: Simonyan and Zisserman, Very Deep Convolutional Networks (arXiv 1409.1556), in the form
    of the distillation benchmarks for 32x32 images (RepDistiller, models/vgg.py at eedab9d): global
    average pooling and one linear layer in place of three, and no pooling before the last stage.

    Parameters with 100 classes: VGG-13 has 9,462,180, which is the published 133,053,736 of
    torchvision's vgg13_bn less its three linear layers (123,642,856) plus this one (51,300). For
    VGG-8, 3,965,028 by the same layer table, no published figure was found.

    Args:
        inputs: shape of one image, (channels, height, width).
        classes: number of classes.
        widths: for each stage the channels of its convolutions.
        halved: how many stages begin with a 2x2 max pooling, counted from the second. None: all but
            the last, which is right for 32x32 images; 64x64 images want one more.
        scale: factor of the channels, rounded to whole numbers, at least 1.

    Raises:
        ValueError: an argument is out of range, or the images are too small for the poolings.
    """

    def __init__(
        self,
        inputs: Sequence[int],
        classes: int,
        widths: Sequence[Sequence[int]] = ((64,), (128,), (256,), (512,), (512,)),
        halved: int | None = None,
        scale: float = 1.0,
    ) -> None:
        channels, height, width = image_shape(inputs)
        at_least(2, classes=classes)
        if not widths:
            raise ValueError("widths must be those of one or more stages, got []")
        widths = tuple(sizes("widths of a stage", stage) for stage in widths)
        poolings = max(len(widths) - 2, 0) if halved is None else halved
        if not 0 <= poolings < len(widths):
            raise ValueError(f"halved must be from 0 to {len(widths) - 1}, got {halved}")
        if min(height, width) < 2**poolings:
            raise ValueError(
                f"inputs must be at least {2**poolings} pixels high and wide to be halved "
                f"{poolings} times, got {list(inputs)}"
            )
        stages = []
        before = channels
        for number, stage in enumerate(widths):
            layers: list[nn.Module] = [nn.MaxPool2d(2)] if 0 < number <= poolings else []
            for after in scaled(stage, scale):
                # The bias is redundant before BatchNorm; the published counts include it.
                conv = nn.Conv2d(before, after, 3, padding=1)
                layers += [conv, nn.BatchNorm2d(after), nn.ReLU()]
                before = after
            stages.append(nn.Sequential(*layers))
        classifier = nn.Linear(before, classes)
        super().__init__(
            OrderedDict(
                stages=nn.Sequential(*stages),
                pool=global_average(),
                classifier=classifier,
            )
        )
        self.inputs = tuple(inputs)
        self.classes = classes
        self.widths = widths
        self.halved = halved
        self.scale = scale
        initialise(self)
        small_classifier(classifier)
