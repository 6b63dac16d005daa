"""Self-attention relations: how the places of a sample relate, in heads that are split anew."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ensemble_kd.functional import kl_of_logs, wide
from ensemble_kd.objectives.comparison import Comparison


class Relation(Comparison):
    """The mean KL(A_t || A_s) over heads and places, with A = softmax(X_h X_h^T / sqrt(d_h)).

    The values X (l, d) of a sample, l tokens or places, are cut into the same number of heads for
    teacher and student, whatever the number of heads with which each of them attends: so their
    widths d and their heads may differ, and nothing is learned. Tap what goes into the attention:
    the projections of queries, keys and values, each with a factor of 1/3.

    Source: Wang et al., MiniLMv2 (arXiv 2012.15828), equations 4 to 7, of one layer; the mean over
    heads and places in place of its sum over heads, divided by both numbers, is the same. Feature
    maps are sequences of their places, which the paper has not. All places count: for texts, whose
    padding must not, there is ``MiniLm``.

    Args:
        heads: number of relation heads; it must divide the widths of both features.

    Raises:
        ValueError: there is no head.
    """

    def __init__(self, heads: int = 1) -> None:
        if heads < 1:
            raise ValueError(f"heads must be >= 1, got {heads}")
        self.heads = heads

    def between(self, student: Tensor, teacher: Tensor) -> nn.Module:
        """The divergence.

        Raises:
            ValueError: a feature has no places, they have not equally many, or a width cannot be
                cut into the heads.
        """
        for owner, feature in (("student", student), ("teacher", teacher)):
            if feature.ndim not in (3, 4):
                raise ValueError(
                    f"the relation of a {owner}'s feature needs places: a map (d, h, w) or a "
                    f"sequence (l, d), got {tuple(feature.shape[1:])}"
                )
            width = _sequence(feature).shape[-1]
            if width % self.heads:
                raise ValueError(
                    f"heads must divide the widths of both features, got {self.heads} and the "
                    f"{owner}'s {width}"
                )
        places = _sequence(student).shape[1], _sequence(teacher).shape[1]
        if places[0] != places[1]:
            raise ValueError(
                f"features must have equally many places, got {places[0]} of the student and "
                f"{places[1]} of the teacher"
            )
        return _Divergence(self.heads)


class _Divergence(nn.Module):
    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        own = self._relations(student)
        with torch.no_grad():
            other = self._relations(teacher)
        return kl_of_logs(other, own).mean(dim=(1, 2))

    def _relations(self, feature: Tensor) -> Tensor:
        """(b, heads, l, l) log-probabilities: how each place attends to all."""
        x = wide(_sequence(feature))
        # (b, heads, l, d / heads)
        split = x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)
        scores = split @ split.mT / math.sqrt(split.shape[-1])
        return scores.log_softmax(dim=-1)


def _sequence(feature: Tensor) -> Tensor:
    """(b, l, d), the places of a map one after the other."""
    return feature.flatten(2).mT if feature.ndim == 4 else feature
