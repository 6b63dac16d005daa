"""Hiding tokens of texts: what is hidden where is a pure function of seed, sample and epoch."""

from __future__ import annotations

import torch
from torch import Tensor

from ensemble_kd.data.counter import absorb, integers, words
from ensemble_kd.types import UNLABELLED, Tokens

FINE = 2**24
"""Steps of a number that is drawn from [0, 1)."""

WHICH, HOW, INSTEAD = map(words, range(3))
"""What is drawn for each token: its rank among those to choose from, what happens to it, and the
token that may take its place."""


class Masking:
    """Hides tokens of texts.

    Args:
        ordinary: (v,) bool, for each token of the vocabulary whether it may be chosen and drawn.
        mask: the token that stands where another one is hidden.
        share: of the tokens of a text that are chosen.
        hidden: share of the chosen ones that are hidden.
        replaced: share of them that are replaced.
    """

    def __init__(
        self, ordinary: Tensor, mask: int, share: float, hidden: float, replaced: float
    ) -> None:
        self.ordinary = ordinary
        self.drawable = ordinary.nonzero().flatten()
        self.mask = mask
        self.share = share
        self.hidden = hidden
        self.replaced = replaced

    def __call__(
        self, tokens: Tokens, index: Tensor, seed: int, epoch: int
    ) -> tuple[Tokens, Tensor]:
        """Texts with some tokens hidden, and what stood there.

        The text itself is left out: it would give away what is hidden.

        Args:
            tokens: the texts.
            index: (b,) int64, the numbers of the samples.
            seed: of all that is drawn.
            epoch: in which they are seen.

        Returns:
            The texts, and (b, l) int64 the tokens that were chosen, ``UNLABELLED`` elsewhere.
        """
        ids, length = tokens.ids, tokens.ids.shape[1]
        state = absorb(absorb(words(seed), words(epoch)), words(index))
        may = tokens.mask & self.ordinary[ids]
        count = (self.share * may.sum(dim=1, keepdim=True)).round().clamp(min=1)
        keys = integers(absorb(state, WHICH), length, 2**32).masked_fill(~may, 2**32)
        rank = keys.argsort(dim=1, stable=True).argsort(dim=1)
        chosen = may & (rank < count)

        how = integers(absorb(state, HOW), length, FINE) / FINE
        others = self.drawable[integers(absorb(state, INSTEAD), length, len(self.drawable))]
        shown = torch.where(chosen & (how < self.hidden), self.mask, ids)
        swapped = chosen & (how >= self.hidden) & (how < self.hidden + self.replaced)
        shown = torch.where(swapped, others, shown)
        nothing = tokens.text.new_zeros(len(ids), 0)
        return tokens._replace(ids=shown, text=nothing), ids.where(chosen, UNLABELLED)
