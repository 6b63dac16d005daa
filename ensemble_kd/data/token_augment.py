"""Augmentations of texts: tokens that are hidden or exchanged, differently at each visit.

Special tokens and padding stay. ``Tokens.text`` is left as it is: networks that read with a
tokenizer of their own see no difference.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from ensemble_kd.data.augment import Augmentation
from ensemble_kd.data.counter import absorb, derive, integers, words
from ensemble_kd.data.tokenizing import MASKS, special, vocabulary_of
from ensemble_kd.errors import UserError
from ensemble_kd.types import Tokens

STEPS = 2**24
"""Of a probability."""

_Own = TypeVar("_Own", bound="_OfTokens")


@dataclass(frozen=True)
class _OfTokens(Augmentation):
    """What is common to both: which tokens are chosen.

    Args:
        p: probability that a token is chosen, in [0, 1].
        ordinary: (v,) bool, which tokens of the vocabulary are no special ones; the data fills it
            in.
        mask: the number of the token that hides others, likewise.
    """

    p: float
    ordinary: Any = None
    mask: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1:
            raise ValueError(f"p must be in [0, 1], got {self.p}")

    def __repr__(self) -> str:
        # What the data fills in follows from its tokenizer, which its digest covers anyway.
        return f"{type(self).__name__}(p={self.p!r})"

    def fitted(self: _Own, tokenizer: Any) -> _Own:
        """This augmentation for texts of a tokenizer."""
        ordinary = torch.zeros(vocabulary_of(tokenizer), dtype=torch.bool)
        ordinary[list(tokenizer.get_vocab().values())] = True
        for number, token in tokenizer.get_added_tokens_decoder().items():
            ordinary[number] = not token.special
        found = special(tokenizer, MASKS)
        return replace(self, ordinary=ordinary, mask=None if found is None else found[0])

    def _chosen(self, inputs: Any, index: Tensor, epoch: Tensor | int, seed: int) -> Tensor:
        """(b, l) bool."""
        if not isinstance(inputs, Tokens) or self.ordinary is None:
            raise UserError(f"augment: {type(self).__name__} needs texts, got other samples")
        drawn = _drawn(inputs, index, epoch, seed, STEPS)
        chosen: Tensor = (drawn < self.p * STEPS) & inputs.mask & self.ordinary[inputs.ids]
        return chosen


@dataclass(frozen=True, repr=False)
class MaskTokens(_OfTokens):
    """Put the mask token in the place of some tokens.

    Source: word masking of Tang et al. (arXiv 1903.12136), section 3.3, for tokens and anew at each
    visit.

    Args:
        p: probability that a token is hidden, in [0, 1].
    """

    def __call__(self, inputs: Any, index: Tensor, epoch: Tensor | int, seed: int) -> Tokens:
        chosen = self._chosen(inputs, index, epoch, seed)
        if self.mask is None:
            raise UserError(
                f"augment: MaskTokens needs a tokenizer with a token for masks, {', '.join(MASKS)}"
            )
        hidden: Tokens = inputs._replace(ids=inputs.ids.masked_fill(chosen, self.mask))
        return hidden


@dataclass(frozen=True, repr=False)
class ReplaceTokens(_OfTokens):
    """Put others in the place of some tokens, each token of the vocabulary equally often.

    Args:
        p: probability that a token gives way, in [0, 1]; perhaps to itself.
    """

    def __call__(self, inputs: Any, index: Tensor, epoch: Tensor | int, seed: int) -> Tokens:
        chosen = self._chosen(inputs, index, epoch, seed)
        drawable = self.ordinary.nonzero().flatten()
        drawn = _drawn(inputs, index, epoch, derive(seed, "instead"), len(drawable))
        replaced: Tokens = inputs._replace(ids=torch.where(chosen, drawable[drawn], inputs.ids))
        return replaced


def _drawn(inputs: Tokens, index: Tensor, epoch: Tensor | int, seed: int, bound: int) -> Tensor:
    """(b, l) numbers in [0, bound), each a function of seed, sample, visit and place."""
    state = absorb(absorb(words(seed), words(index)), words(epoch))
    return integers(state, inputs.ids.shape[1], bound).to(inputs.ids.device)
