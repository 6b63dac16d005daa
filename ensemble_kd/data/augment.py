"""Augmentations of whole batches, each sample's a function of seed, sample and visit alone.

A sample therefore looks the same whatever batch it is in, on however many processes: outputs of
teachers can be stored by sample and epoch, and a resumed run sees what a straight run sees.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ensemble_kd.data.counter import Words, absorb, derive, integers, normal, words
from ensemble_kd.errors import UserError


class Augmentation(ABC):
    """One way to vary inputs.

    Subclasses are frozen dataclasses: their ``repr`` says all their settings, and the digest of the
    data covers it.
    """

    @abstractmethod
    def __call__(self, inputs: Any, index: Tensor, epoch: Tensor | int, seed: int) -> Any:
        """Vary a batch.

        Args:
            inputs: (b, ...) float32, or ``Tokens``; left as it is.
            index: (b,) int64, the stable number of each sample.
            epoch: which visit of the sample this is, a number or (b,) int64.
            seed: any whole number.

        Returns:
            Inputs like ``inputs``.

        Raises:
            UserError: it does not suit such inputs.
        """

    def fitted(self, tokenizer: Any) -> Augmentation:
        """This augmentation for texts of a ``tokenizers.Tokenizer``; itself where none matters."""
        return self


@dataclass(frozen=True)
class Noise(Augmentation):
    """Add normal noise to each value.

    Args:
        std: standard deviation of the noise, >= 0, on the scale of the inputs before they are
            standardised (images: [0, 1]).
    """

    std: float

    def __post_init__(self) -> None:
        if not 0 <= self.std < float("inf"):
            raise ValueError(f"std must be a finite number >= 0, got {self.std}")

    def __call__(self, inputs: Tensor, index: Tensor, epoch: Tensor | int, seed: int) -> Tensor:
        if not isinstance(inputs, Tensor):
            raise UserError("augment: Noise needs numbers, got texts")
        noise = normal(_state(seed, index, epoch), inputs[0].numel())
        return torch.add(inputs, noise.view(inputs.shape).to(inputs.device), alpha=self.std)


@dataclass(frozen=True)
class Shift(Augmentation):
    """Move each image by whole pixels, up and down and sideways; zeros come in at the edges.

    The same as a random crop of the image padded with ``pixels`` zeros on each side.

    Args:
        pixels: the largest distance in each direction, >= 0.
    """

    pixels: int

    def __post_init__(self) -> None:
        if self.pixels < 0:
            raise ValueError(f"pixels must be >= 0, got {self.pixels}")

    def __call__(self, inputs: Tensor, index: Tensor, epoch: Tensor | int, seed: int) -> Tensor:
        images = _images(inputs, "Shift")
        return _cropped(F.pad(images, (self.pixels,) * 4), images, _state(seed, index, epoch))


@dataclass(frozen=True)
class Crop(Augmentation):
    """A random window of each image, of its own size, after the image was continued by reflection.

    Source: the padding of Zagoruyko and Komodakis, Wide Residual Networks (arXiv 1605.07146),
    section 3. For padding with zeros use ``Shift``.

    Args:
        padding: by how many pixels the image is continued on each side, >= 0 and smaller than it.
    """

    padding: int

    def __post_init__(self) -> None:
        if self.padding < 0:
            raise ValueError(f"padding must be >= 0, got {self.padding}")

    def __call__(self, inputs: Tensor, index: Tensor, epoch: Tensor | int, seed: int) -> Tensor:
        images = _images(inputs, "Crop")
        if self.padding >= min(images.shape[-2:]):
            raise UserError(
                f"augment: Crop(padding) must be smaller than the image, got {self.padding} "
                f"for images of shape {tuple(images.shape[1:])}"
            )
        padded = F.pad(images, (self.padding,) * 4, mode="reflect")
        return _cropped(padded, images, _state(seed, index, epoch))


@dataclass(frozen=True)
class ResizedCrop(Augmentation):
    """A random window of each image, enlarged to the size of the image.

    Source: Szegedy et al., Going Deeper with Convolutions (arXiv 1409.4842), section 6, with 0.08
    and 4/3. Here the window's aspect is relative to that of the image, it is uniform in [1, aspect]
    and inverted for every other image, and a window that would not fit is cut to the image.

    Args:
        smallest: the smallest share of the area, in (0, 1]; shares are uniform from there to 1.
        aspect: by how much the window is stretched at most, >= 1.
    """

    smallest: float
    aspect: float = 4 / 3

    def __post_init__(self) -> None:
        if not 0 < self.smallest <= 1:
            raise ValueError(f"smallest must be in (0, 1], got {self.smallest}")
        if not 1 <= self.aspect < float("inf"):
            raise ValueError(f"aspect must be a finite number >= 1, got {self.aspect}")

    def __call__(self, inputs: Tensor, index: Tensor, epoch: Tensor | int, seed: int) -> Tensor:
        images = _images(inputs, "ResizedCrop")
        drawn = integers(_state(seed, index, epoch), 5, 2**24).float() / 2**24
        area, stretch, coin, down, right = drawn.to(images.device).unbind(-1)
        # Only sums, products and roots, which are exact to the last bit wherever they are computed.
        area = self.smallest + (1 - self.smallest) * area
        stretch = 1 + (self.aspect - 1) * stretch
        stretch = torch.where(coin < 0.5, stretch, 1 / stretch)
        rows = _window((area / stretch).sqrt().clamp(max=1), down, images.shape[-2])
        columns = _window((area * stretch).sqrt().clamp(max=1), right, images.shape[-1])
        places = (len(images), images.shape[-2], images.shape[-1])
        grid = [columns[:, None, :].expand(places), rows[:, :, None].expand(places)]
        return F.grid_sample(
            images, torch.stack(grid, dim=-1), padding_mode="border", align_corners=False
        )


@dataclass(frozen=True)
class Flip(Augmentation):
    """Mirror every other image, left to right."""

    def __call__(self, inputs: Tensor, index: Tensor, epoch: Tensor | int, seed: int) -> Tensor:
        images = _images(inputs, "Flip")
        coin = integers(_state(seed, index, epoch), 1, 2).bool().to(images.device)
        return torch.where(coin[..., None, None], images.flip(-1), images)


@dataclass(frozen=True)
class Chain(Augmentation):
    """One augmentation after the other, each with its own random numbers.

    Args:
        steps: the augmentations in order; none at all leaves the inputs as they are.
    """

    steps: Sequence[Augmentation]

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(self.steps))

    def fitted(self, tokenizer: Any) -> Chain:
        """All steps, each for texts of a tokenizer."""
        return Chain([step.fitted(tokenizer) for step in self.steps])

    def __call__(self, inputs: Any, index: Tensor, epoch: Tensor | int, seed: int) -> Any:
        for position, step in enumerate(self.steps):
            inputs = step(inputs, index, epoch, derive(seed, f"step {position}"))
        return inputs


def _state(seed: int, index: Tensor, epoch: Tensor | int) -> Words:
    return absorb(absorb(words(seed), words(index)), words(epoch))


def _images(inputs: Tensor, name: str) -> Tensor:
    if not isinstance(inputs, Tensor):
        raise UserError(f"augment: {name} needs images, got texts")
    if inputs.ndim != 4:
        raise UserError(
            f"augment: {name} needs images of shape (channels, height, width), "
            f"got samples of shape {tuple(inputs.shape[1:])}"
        )
    return inputs


def _cropped(padded: Tensor, images: Tensor, state: Words) -> Tensor:
    """A window of the size of ``images`` at a random place of each padded image."""
    height, width = images.shape[-2:]
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    across = torch.arange(len(images), device=images.device)
    down, right = integers(state, 2, windows.shape[2]).to(images.device).unbind(-1)
    return windows[across, :, down, right]


def _window(share: Tensor, place: Tensor, size: int) -> Tensor:
    """(b, size) where the pixels of windows lie along an axis that reaches from -1 to 1.

    Args:
        share: (b,) length of each window, in (0, 1].
        place: (b,) where each begins, from 0 for the first possible place to 1 for the last.
        size: pixels of the axis.
    """
    centres = (torch.arange(size, device=share.device) + 0.5) / size
    return 2 * ((place * (1 - share))[:, None] + share[:, None] * centres) - 1
