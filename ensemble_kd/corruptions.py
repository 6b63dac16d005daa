"""Ways in which samples get worse, in five grades of severity.

Source: Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations (arXiv 1903.12261), for the idea and the five grades. Deviations: amounts are relative
to the spread of the data and to the size of an image, so that they mean the same for any data; and
they are this project's own, so the figures cannot be held against those of the paper.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ensemble_kd.data.counter import Words, absorb, derive, integers, normal, words
from ensemble_kd.types import SEPARATOR, Tokens

SEVERITIES = (1, 2, 3, 4, 5)


class Corruption(ABC):
    """One way. What happens to a sample depends on its number and on the severity alone."""

    @abstractmethod
    def suits(self, inputs: Any) -> bool:
        """Whether inputs are of the kind that it spoils."""

    @abstractmethod
    def __call__(self, inputs: Any, index: Tensor, severity: int) -> Any:
        """Inputs of the same shapes.

        Args:
            inputs: of a batch, for which ``suits`` is true.
            index: (b,) int64, the numbers of the samples.
            severity: 1 to 5.
        """

    def fitted(self, inputs: Any, tokenizer: Any) -> Corruption:
        """The same for one data set.

        Args:
            inputs: some samples of it.
            tokenizer: of the library ``tokenizers``, of data that are texts; otherwise None.
        """
        return self


class Noise(Corruption):
    """Normal noise, 0.2 times the spread of the data for each grade.

    The spread is the standard deviation over samples: of each column of a table, of each channel of
    images.
    """

    def __init__(self) -> None:
        self.spread = torch.ones(())

    def suits(self, inputs: Any) -> bool:
        """Images and rows of tables."""
        return isinstance(inputs, Tensor) and inputs.is_floating_point()

    def fitted(self, inputs: Any, tokenizer: Any) -> Corruption:
        """With the spread of these samples."""
        made = copy.copy(self)
        if self.suits(inputs):
            axes = [0, *range(2, inputs.ndim)]
            made.spread = inputs.std(dim=axes, correction=0, keepdim=True)[0]
        return made

    def __call__(self, inputs: Any, index: Tensor, severity: int) -> Any:
        drawn = normal(_state("noise", index, severity), inputs[0].numel()).view(inputs.shape)
        noisy: Tensor = inputs + 0.2 * severity * self.spread.to(inputs) * drawn.to(inputs)
        return noisy


class Blur(Corruption):
    """A Gaussian blur, whose width is a sixteenth of the root of the image's side for each grade.

    That is 0.2 to 0.9 pixels for images of 8, 0.35 to 1.8 for 32, 0.9 to 4.7 for 224.
    """

    def suits(self, inputs: Any) -> bool:
        """Images."""
        return _images(inputs)

    def __call__(self, inputs: Any, index: Tensor, severity: int) -> Any:
        sigma = severity * min(inputs.shape[-2:]) ** 0.5 / 16
        reach = min(max(1, round(3 * sigma)), min(inputs.shape[-2:]) - 1)
        steps = torch.arange(-reach, reach + 1, dtype=inputs.dtype, device=inputs.device)
        kernel = (-(steps**2) / (2 * sigma**2)).exp()
        kernel = (kernel / kernel.sum()).expand(inputs.shape[1], 1, -1)
        edged = F.pad(inputs, (reach,) * 4, mode="reflect")
        across = F.conv2d(edged, kernel.unsqueeze(2), groups=inputs.shape[1])
        return F.conv2d(across, kernel.unsqueeze(3), groups=inputs.shape[1])


class Contrast(Corruption):
    """Each channel of an image nearer to its mean: what differs from it shrinks to 0.82 ... 0.1."""

    def suits(self, inputs: Any) -> bool:
        """Images."""
        return _images(inputs)

    def __call__(self, inputs: Any, index: Tensor, severity: int) -> Any:
        mean = inputs.mean(dim=(-2, -1), keepdim=True)
        return mean + (1 - 0.18 * severity) * (inputs - mean)


class TokenDrop(Corruption):
    """Words that are missing from a text: a tenth of them for each grade, but never all.

    Words are what blanks stand between. The text is read anew by the tokenizer of the data, so that
    networks with tokenizers of their own miss the same words.
    """

    def __init__(self) -> None:
        self.tokenizer: Any = None

    def suits(self, inputs: Any) -> bool:
        """Texts that have one class; where each word has one, none may be missing."""
        return isinstance(inputs, Tokens) and self.tokenizer is not None

    def fitted(self, inputs: Any, tokenizer: Any) -> Corruption:
        """With the tokenizer of the data."""
        made = copy.copy(self)
        made.tokenizer = tokenizer
        return made

    def __call__(self, inputs: Any, index: Tensor, severity: int) -> Any:
        rows = inputs.text.cpu().numpy()
        states = _state("token_drop", index, severity)
        texts = [
            _thinned(bytes(row).rstrip(b"\0").decode(), state[None], severity)
            for row, state in zip(rows, states, strict=True)
        ]
        parts = [tuple(text.split(chr(SEPARATOR))) for text in texts]
        found = self.tokenizer.encode_batch([both if len(both) > 1 else both[0] for both in parts])
        written = np.zeros_like(rows)
        for row, text in zip(written, texts, strict=True):
            said = np.frombuffer(text.encode(), np.uint8)
            row[: len(said)] = said
        device = inputs.ids.device
        return Tokens(
            ids=torch.tensor([each.ids for each in found], device=device),
            mask=torch.tensor([each.attention_mask for each in found], device=device).bool(),
            kinds=torch.tensor([each.type_ids for each in found], device=device),
            text=torch.from_numpy(written).to(device),
        )


def _thinned(text: str, state: Words, severity: int) -> str:
    """A text without a tenth of its words for each grade, each part of a pair by itself."""
    thin = []
    for number, part in enumerate(text.split(chr(SEPARATOR))):
        spoken = part.split()
        drawn = integers(absorb(state, words(number)), max(len(spoken), 1), 10)[0].tolist()
        kept = [word for word, draw in zip(spoken, drawn, strict=False) if draw >= severity]
        thin.append(" ".join(kept or spoken[:1]))
    return chr(SEPARATOR).join(thin)


def _images(inputs: Any) -> bool:
    return (
        isinstance(inputs, Tensor)
        and inputs.is_floating_point()
        and inputs.ndim == 4
        and min(inputs.shape[-2:]) > 1
    )


def _state(purpose: str, index: Tensor, severity: int) -> Words:
    return absorb(absorb(words(derive(severity, purpose)), words(index)), words(severity))
