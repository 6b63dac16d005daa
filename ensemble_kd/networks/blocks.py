"""Parts of which the convolutional networks are made.

No activation works in place: a feature that is tapped before an activation must stay what it was.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn


class Residual(nn.Module):
    """The sum of a branch and a shortcut.

    Args:
        branch: what learns the difference.
        shortcut: what the input goes through beside it; by default nothing.
    """

    def __init__(self, branch: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut = shortcut or nn.Identity()

    def forward(self, inputs: Tensor) -> Tensor:
        """``shortcut(inputs) + branch(inputs)``, which must have the same shape."""
        said: Tensor = self.shortcut(inputs) + self.branch(inputs)
        return said


def convolution(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1
) -> nn.Conv2d:
    """A convolution without bias that keeps height and width, up to the stride."""
    return nn.Conv2d(
        inputs, outputs, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False
    )


def normalised(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """A convolution and its BatchNorm."""
    conv = convolution(inputs, outputs, kernel, stride, groups)
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm2d(outputs)))


def activated(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """A convolution, its BatchNorm and a ReLU."""
    layers = normalised(inputs, outputs, kernel, stride, groups)
    layers.add_module("relu", nn.ReLU())
    return layers


def global_average() -> nn.Sequential:
    """From feature maps (b, d, h, w) to features (b, d)."""
    return nn.Sequential(OrderedDict(average=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten()))
