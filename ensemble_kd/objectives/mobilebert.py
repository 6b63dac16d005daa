"""MobileBERT: the states between the blocks, and the attention inside them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ensemble_kd.functional import kl_of_logs, wide
from ensemble_kd.objectives.attention import Attention
from ensemble_kd.objectives.comparison import Comparison, JointComparison
from ensemble_kd.objectives.tokens import check_sequences, cleared, log_attention, token_mean


class MobileBertStates(Comparison):
    """Feature map transfer: the mean squared distance of two states, as they are.

    The mean over the tokens of a text that are no padding, and over the dimensions; nothing is
    learned.

    Source: Sun et al., MobileBERT (arXiv 2004.02984), equation 1, whose mean over the tokens has
    the whole length.
    """

    needs_mask = True

    def between(self, student: Tensor, teacher: Tensor) -> nn.Module:
        """The distance.

        Raises:
            ValueError: the features are not two sequences of one length and width.
        """
        check_sequences(student, teacher, equal=True)
        return _Distance()


class MobileBertAttention(JointComparison):
    """Attention transfer: KL(teacher || student) of the attention of each head and token.

    For a text, sum_j mean_{h,p} KL(T_jhp || S_jhp) over pairs of layers j, the means over heads and
    over the tokens that are no padding; attention goes to tokens that are none either, and is seen
    before any dropout. Layers are named as query, key, query, key, ...; the networks have equally
    many heads. Nothing is learned.

    Source: Sun et al., MobileBERT (arXiv 2004.02984), equation 2, whose mean over the tokens has
    the whole length.

    Args:
        heads: of the attention of both networks.

    Raises:
        ValueError: the number of heads is not positive.
    """

    needs_mask = True

    def __init__(self, heads: int) -> None:
        self.attention = Attention(heads)

    def across(self, students: Sequence[Tensor], teachers: Sequence[Tensor]) -> nn.Module:
        """The divergence.

        Raises:
            ValueError: the layers are not pairs, or their features no sequences of one length, or
                not to be divided among the heads.
        """
        self.attention.check(students, teachers)
        return _Divergence(self.attention)


class _Distance(nn.Module):
    def forward(self, student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
        difference = cleared(wide(student), mask) - cleared(wide(teacher), mask)
        return token_mean(difference.square().mean(dim=2), mask)


class _Divergence(nn.Module):
    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.attention = attention

    def forward(
        self, students: Sequence[Tensor], teachers: Sequence[Tensor], mask: Tensor
    ) -> Tensor:
        values = []
        scores = (self.attention.scores(features, mask) for features in (students, teachers))
        for own, other in zip(*scores, strict=True):
            apart = kl_of_logs(log_attention(other, mask), log_attention(own, mask))
            values.append(token_mean(apart.mean(dim=1), mask))
        return torch.stack(values).sum(dim=0)
