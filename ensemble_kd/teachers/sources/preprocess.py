"""What an image teacher makes of the images that the student sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ensemble_kd.errors import UserError
from ensemble_kd.networks.prepared import Prepared
from ensemble_kd.teachers.sources.source import Told

Interpolation = Literal["nearest", "bilinear", "bicubic"]
Channels = Literal[1, 3]
Middle = Literal["even", "first"]

LUMA = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in grey (ITU-R BT.601), as Pillow's mode L takes them."""


@dataclass(frozen=True)
class Preprocess:
    """How a teacher wants its images, from pixels in [0, 1].

    In this order: resize, crop, convert the channels, scale, normalise. Resizing smooths when it
    makes smaller, as Pillow does, but does not round to bytes.

    Args:
        size: a number: the shorter side becomes that long and the other keeps the ratio; height and
            width: exactly these; None: as it is.
        crop: height and width, or one number for both, of the middle that is kept; what lies beyond
            the image is black; None keeps all.
        interpolation: how to resize.
        middle: where it lies when a side is cut by an odd number of pixels: half of that rounded to
            an ``even`` number is cut in front, as torchvision and timm do it; or the ``first`` one
            of two, as transformers does.
        channels: 3 repeats grey, 1 makes grey of red, green and blue; None keeps them.
        scale: factor on the pixels before they are normalised: 255 for a network that wants bytes.
        mean: subtracted from them, a number or one for each channel.
        std: what they are divided by afterwards, > 0, likewise.

    Raises:
        ValueError: an argument is out of range.
    """

    size: int | Sequence[int] | None = None
    crop: int | Sequence[int] | None = None
    interpolation: Interpolation = "bilinear"
    middle: Middle = "even"
    channels: Channels | None = None
    scale: float = 1.0
    mean: float | Sequence[float] = 0.0
    std: float | Sequence[float] = 1.0

    def __post_init__(self) -> None:
        for name, value in (("size", self.size), ("crop", self.crop)):
            sides = [1] if value is None else _several(value)
            if len(sides) > 2 or not sides or any(side < 1 for side in sides):
                raise ValueError(f"{name} must be a side or (height, width), >= 1, got {value}")
        if not all(value > 0 for value in _several(self.std)):
            raise ValueError(f"std must be > 0, got {self.std}")
        if not self.scale > 0:
            raise ValueError(f"scale must be > 0, got {self.scale}")


def known_channels(count: int) -> Channels | None:
    """Channels into which images can be converted; None for other numbers, which they must have."""
    return 1 if count == 1 else 3 if count == 3 else None


def prepared(network: nn.Module, preprocess: Preprocess | None, told: Told) -> nn.Module:
    """A network that sees images as it wants them; itself without ``preprocess``.

    Args:
        network: takes images (b, c, h, w).
        preprocess: how it wants them.
        told: of the data: how its images were standardised.

    Raises:
        UserError: the data are no images, or the channels do not fit.
    """
    return network if preprocess is None else Prepared(network, preparing(preprocess, told))


def seen(preprocess: Preprocess | None, told: Told) -> dict[str, Any]:
    """What decides the images that a teacher sees, for its digest."""
    if preprocess is None:
        return {}
    return {"preprocess": preprocess, "mean": told.mean, "std": told.std}


def preparing(preprocess: Preprocess, told: Told) -> nn.Module:
    """From images as the data serves them to images as a teacher wants them.

    Raises:
        UserError: the data are no images, or the channels do not fit.
    """
    if len(told.inputs) != 3 or told.tokenizer is not None:
        raise UserError(
            f"preprocess: expected images (channels, height, width), got samples of shape "
            f"{tuple(told.inputs)}"
        )
    given = told.inputs[0]
    wanted = preprocess.channels or given
    if wanted != given and {wanted, given} != {1, 3}:
        raise UserError(
            f"preprocess.channels: expected 1 or 3 channels to convert into {wanted}, got {given}"
        )
    for name, value in (("mean", preprocess.mean), ("std", preprocess.std)):
        if len(_several(value)) not in (1, wanted):
            raise UserError(
                f"preprocess.{name}: expected one value or {wanted}, got {len(_several(value))}"
            )
    return nn.Sequential(Raw(told), Steps(preprocess, given))


class Raw(nn.Module):
    """From inputs as the data serves them to those before they were standardised.

    Args:
        told: of the data: what was subtracted and divided by.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, told: Told) -> None:
        super().__init__()
        shape = (-1, *[1] * (len(told.inputs) - 1))
        mean, std = (
            torch.tensor(_several(default if value is None else value)).view(shape)
            for value, default in ((told.mean, 0.0), (told.std, 1.0))
        )
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """(b, c, ...) to the same shape."""
        return inputs * self.std + self.mean


class Steps(nn.Module):
    """What ``Preprocess`` says, on pixels in [0, 1].

    Args:
        preprocess: the steps.
        given: number of channels that come.
    """

    mean: Tensor
    std: Tensor
    luma: Tensor

    def __init__(self, preprocess: Preprocess, given: int) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.given = given
        mean = torch.tensor(_several(preprocess.mean)).view(-1, 1, 1)
        std = torch.tensor(_several(preprocess.std)).view(-1, 1, 1)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)
        self.register_buffer("luma", torch.tensor(LUMA).view(-1, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """(b, c, h, w) float32 in [0, 1] to the images that the teacher takes."""
        asked = self.preprocess
        images = pixels
        if asked.size is not None:
            images = _resized(images, _sides(asked.size, images), asked.interpolation)
        if asked.crop is not None:
            height, width = _pair(asked.crop)
            images = _middle(images, height, width, asked.middle)
        if asked.channels == 3 and self.given == 1:
            images = images.expand(-1, 3, -1, -1)
        elif asked.channels == 1 and self.given == 3:
            images = (images * self.luma).sum(dim=1, keepdim=True)
        return (images * asked.scale - self.mean) / self.std

    def extra_repr(self) -> str:
        """By which two of them are told apart."""
        return f"{self.preprocess}, given={self.given}"


def _several(value: float | Sequence[float]) -> list[float]:
    return [float(value)] if isinstance(value, int | float) else [float(each) for each in value]


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    return (value[0], value[0]) if len(value) == 1 else (value[0], value[1])


def _sides(size: int | Sequence[int], images: Tensor) -> tuple[int, int]:
    """Height and width after resizing."""
    if not isinstance(size, int):
        return _pair(size)
    height, width = images.shape[-2:]
    # The long side is cut down, as torchvision, transformers and timm do it.
    if height <= width:
        return size, int(size * width / height)
    return int(size * height / width), size


def _resized(images: Tensor, sides: tuple[int, int], interpolation: Interpolation) -> Tensor:
    if sides == tuple(images.shape[-2:]):
        return images
    if interpolation == "nearest":
        return F.interpolate(images, sides, mode="nearest-exact")
    smooth = F.interpolate(images, sides, mode=interpolation, antialias=True, align_corners=False)
    # Where bicubic overshoots, as bytes would.
    return smooth.clamp(0, 1)


def _middle(images: Tensor, height: int, width: int, middle: Middle) -> Tensor:
    """The middle of images, with black around those that are smaller."""
    above = _in_front(images.shape[-2] - height, middle)
    left = _in_front(images.shape[-1] - width, middle)
    below = images.shape[-2] - height - above
    right = images.shape[-1] - width - left
    return F.pad(images, (-left, -right, -above, -below))


def _in_front(margin: int, middle: Middle) -> int:
    """How many pixels of a margin are cut before the middle; fewer than none are added."""
    if middle == "first":
        return margin // 2
    # Python rounds halves to the even number; what is too little is added behind.
    return round(margin / 2) if margin > 0 else -(-margin // 2)
