"""Numbers of parameters, against published figures and against layer tables."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import nn

from ensemble_kd.networks import Cnn, Mlp, MobileNetV2, ResNet, ShuffleNetV2, Vgg, WideResNet

CIFAR = (3, 32, 32)
NARROW, WIDE = (16, 16, 32, 64), (32, 64, 128, 256)
VGG13 = ((64, 64), (128, 128), (256, 256), (512, 512), (512, 512))

# Source: osmr/imgclsmob, README, tables CIFAR-10 and CIFAR-100. Figures that are marked "code" are
# what other public training codes report for the same network.
EXACT: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "ResNet-20, 10 classes": (lambda: ResNet(CIFAR, 10, 20, NARROW), 272_474),
    "ResNet-56, 10 classes": (lambda: ResNet(CIFAR, 10, 56, NARROW), 855_770),
    "ResNet-110, 10 classes": (lambda: ResNet(CIFAR, 10, 110, NARROW), 1_730_714),
    "ResNet-20, 100 classes": (lambda: ResNet(CIFAR, 100, 20, NARROW), 278_324),
    "ResNet-56, 100 classes": (lambda: ResNet(CIFAR, 100, 56, NARROW), 861_620),
    "ResNet-110, 100 classes": (lambda: ResNet(CIFAR, 100, 110, NARROW), 1_736_564),
    "ResNet-32x4, 100 classes (code)": (lambda: ResNet(CIFAR, 100, 32, WIDE), 7_433_860),
    "ResNet-20, unprojected (code)": (lambda: ResNet(CIFAR, 10, 20, NARROW, False), 269_722),
    "ResNet-32, unprojected (code)": (lambda: ResNet(CIFAR, 10, 32, NARROW, False), 464_154),
    "ResNet-56, unprojected (code)": (lambda: ResNet(CIFAR, 10, 56, NARROW, False), 853_018),
    "ResNet-110, unprojected (code)": (lambda: ResNet(CIFAR, 10, 110, NARROW, False), 1_727_962),
    "WRN-16-10, 10 classes": (lambda: WideResNet(CIFAR, 10, 16, 10), 17_116_634),
    "WRN-16-10, 100 classes": (lambda: WideResNet(CIFAR, 100, 16, 10), 17_174_324),
    "WRN-28-10, 10 classes": (lambda: WideResNet(CIFAR, 10, 28, 10), 36_479_194),
    "WRN-40-8, 10 classes": (lambda: WideResNet(CIFAR, 10, 40, 8), 35_748_314),
    "WRN-22-8, 10 classes (code)": (lambda: WideResNet(CIFAR, 10, 22, 8), 17_158_106),
    "WRN-40-2, 10 classes (code)": (lambda: WideResNet(CIFAR, 10, 40, 2), 2_243_546),
    "WRN-40-2, 100 classes (code)": (lambda: WideResNet(CIFAR, 100, 40, 2), 2_255_156),
    # The published network has no bias in its classifier.
    "MobileNetV2 x0.5": (lambda: MobileNetV2(CIFAR, 1000, 0.5), 1_964_736 + 1000),
    "MobileNetV2 x1": (lambda: MobileNetV2(CIFAR, 1000, 1.0), 3_504_960 + 1000),
    # torchvision, vgg13_bn: its three linear layers go, one of 512 x 100 comes.
    "VGG-13, 100 classes": (
        lambda: Vgg(CIFAR, 100, VGG13),
        133_053_736 - (25_089 * 4096 + 4097 * 4096 + 4097 * 1000) + 513 * 100,
    ),
    # torchvision, shufflenet_v2_x1_0 and x0_5: their stem is 3x3, here it is 1x1.
    "ShuffleNetV2 x1": (lambda: ShuffleNetV2(CIFAR, 1000), 2_278_604 - 3 * 24 * 8),
    "ShuffleNetV2 x0.5": (
        lambda: ShuffleNetV2(CIFAR, 1000, (48, 96, 192)),
        1_366_792 - 3 * 24 * 8,
    ),
}

# In millions, as the papers print them: He et al. (arXiv 1512.03385), table 6, CIFAR-10; Zagoruyko
# and Komodakis (arXiv 1605.07146), table 4.
ROUNDED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "ResNet-20": (lambda: ResNet(CIFAR, 10, 20, NARROW, False), "0.27"),
    "ResNet-32": (lambda: ResNet(CIFAR, 10, 32, NARROW, False), "0.46"),
    "ResNet-56": (lambda: ResNet(CIFAR, 10, 56, NARROW, False), "0.85"),
    "ResNet-110": (lambda: ResNet(CIFAR, 10, 110, NARROW, False), "1.7"),
    "WRN-40-1": (lambda: WideResNet(CIFAR, 10, 40, 1), "0.6"),
    "WRN-40-2": (lambda: WideResNet(CIFAR, 10, 40, 2), "2.2"),
    "WRN-40-4": (lambda: WideResNet(CIFAR, 10, 40, 4), "8.9"),
    "WRN-16-8": (lambda: WideResNet(CIFAR, 10, 16, 8), "11.0"),
    "WRN-16-10": (lambda: WideResNet(CIFAR, 10, 16, 10), "17.1"),
    "WRN-22-8": (lambda: WideResNet(CIFAR, 10, 22, 8), "17.2"),
    "WRN-28-10": (lambda: WideResNet(CIFAR, 10, 28, 10), "36.5"),
}


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def on_paper(build: Callable[[], nn.Module]) -> nn.Module:
    """A network whose weights have shapes and no values."""
    with torch.device("meta"):
        return build()


@pytest.mark.parametrize("name", EXACT)
def test_published_counts(name: str) -> None:
    build, published = EXACT[name]
    assert count(on_paper(build)) == published


@pytest.mark.parametrize("name", ROUNDED)
def test_counts_as_the_papers_round_them(name: str) -> None:
    build, published = ROUNDED[name]
    digits = len(published.partition(".")[2])
    assert f"{count(on_paper(build)) / 1e6:.{digits}f}" == published


def conv(before: int, after: int, kernel: int = 3, groups: int = 1) -> int:
    """A convolution without bias and its BatchNorm."""
    return before // groups * after * kernel**2 + 2 * after


def reference_resnet(depth: int, widths: tuple[int, ...], classes: int) -> int:
    total = conv(3, widths[0])
    for before, after in pairwise(widths):
        total += conv(before, after) + ((depth - 2) // 3 - 1) * conv(after, after)
        # The widths used here differ from stage to stage but for a stem of 16 before a stage of 16.
        total += conv(before, after, 1) if before != after else 0
    return total + (widths[-1] + 1) * classes


def reference_wide_resnet(depth: int, widen: int, classes: int) -> int:
    widths = [16, 16 * widen, 32 * widen, 64 * widen]
    total = 3 * 16 * 9
    for before, after in pairwise(widths):
        first = 2 * before + before * after * 9 + 2 * after + after * after * 9
        other = 2 * (2 * after + after * after * 9)
        total += first + ((depth - 4) // 6 - 1) * other
        total += before * after if before != after else 0
    return total + 2 * widths[-1] + (widths[-1] + 1) * classes


def reference_vgg(stages: tuple[tuple[int, ...], ...], classes: int) -> int:
    total, before = 0, 3
    for after in (width for stage in stages for width in stage):
        total += conv(before, after) + after
        before = after
    return total + (before + 1) * classes


def reference_mobilenet(width: float, classes: int) -> int:
    before = int(32 * width)
    total = conv(3, before)
    table = [(1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1)]
    for expansion, base, blocks in table:
        after = int(base * width)
        for _ in range(blocks):
            inside = before * expansion
            total += conv(before, inside, 1) + conv(inside, inside, 3, inside)
            total += conv(inside, after, 1)
            before = after
    return total + conv(before, 1280, 1) + 1281 * classes


def reference_shufflenet(widths: tuple[int, ...], classes: int) -> int:
    total, before = conv(3, 24, 1), 24
    for after, units in zip(widths, (3, 7, 3), strict=True):
        half = after // 2
        total += conv(before, before, 3, before) + conv(before, half, 1)
        total += conv(before, half, 1) + conv(half, half, 3, half) + conv(half, half, 1)
        total += units * (2 * conv(half, half, 1) + conv(half, half, 3, half))
        before = after
    return total + conv(before, 1024, 1) + 1025 * classes


# No published figure was found for these: their layer tables, summed by hand, stand in.
TABLES: dict[str, tuple[Callable[[], nn.Module], int, int]] = {
    "ResNet-8": (lambda: ResNet(CIFAR, 100, 8), reference_resnet(8, NARROW, 100), 83_892),
    "ResNet-14": (lambda: ResNet(CIFAR, 100, 14), reference_resnet(14, NARROW, 100), 181_108),
    "ResNet-32": (lambda: ResNet(CIFAR, 100, 32), reference_resnet(32, NARROW, 100), 472_756),
    "ResNet-8x4": (lambda: ResNet(CIFAR, 100, 8, WIDE), reference_resnet(8, WIDE, 100), 1_233_540),
    "WRN-16-1": (lambda: WideResNet(CIFAR, 100, 16, 1), reference_wide_resnet(16, 1, 100), 180_916),
    "WRN-16-2": (lambda: WideResNet(CIFAR, 100, 16, 2), reference_wide_resnet(16, 2, 100), 703_284),
    "WRN-40-1": (lambda: WideResNet(CIFAR, 100, 40, 1), reference_wide_resnet(40, 1, 100), 569_780),
    "WRN-28-10": (
        lambda: WideResNet(CIFAR, 100, 28, 10),
        reference_wide_resnet(28, 10, 100),
        36_536_884,
    ),
    "VGG-8": (
        lambda: Vgg(CIFAR, 100),
        reference_vgg(((64,), (128,), (256,), (512,), (512,)), 100),
        3_965_028,
    ),
    "VGG-13": (lambda: Vgg(CIFAR, 100, VGG13), reference_vgg(VGG13, 100), 9_462_180),
    "MobileNetV2 x0.5": (lambda: MobileNetV2(CIFAR, 100), reference_mobilenet(0.5, 100), 812_836),
    "ShuffleNetV2 x1": (
        lambda: ShuffleNetV2(CIFAR, 100),
        reference_shufflenet((116, 232, 464), 100),
        1_355_528,
    ),
    "Cnn": (
        lambda: Cnn((1, 8, 8), 10, [4, 8], grid=2),
        conv(1, 4) + conv(4, 8) + (8 * 4 + 1) * 10,
        678,
    ),
    "Mlp": (lambda: Mlp((1, 8, 8), 10, [32]), 64 * 32 + 2 * 32 + 33 * 10, 2_442),
    "Mlp, plain": (lambda: Mlp((1, 8, 8), 10, [32], False), 65 * 32 + 33 * 10, 2_410),
}


@pytest.mark.parametrize("name", TABLES)
def test_counts_of_the_layer_tables(name: str) -> None:
    build, table, known = TABLES[name]
    assert count(on_paper(build)) == table == known
