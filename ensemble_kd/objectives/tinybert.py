"""TinyBERT: attention before the softmax, and states behind a learned matrix."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ensemble_kd.functional import wide
from ensemble_kd.objectives.attention import Attention
from ensemble_kd.objectives.comparison import JointComparison
from ensemble_kd.objectives.tokens import check_groups, cleared, token_mean


class TinyBertAttention(JointComparison):
    """The mean squared distance of attention scores, as they are before the softmax.

    For a text, sum_j mean_{h,p,q} (s_jhpq - t_jhpq)^2 over pairs of layers j, with s and t the
    products of query p and key q over sqrt(d / h), the means over heads and over the tokens p and q
    that are no padding. Layers are named as query, key, query, key, ...; the networks have equally
    many heads, and may differ in width. Nothing is learned.

    Source: Jiao et al., TinyBERT (arXiv 1909.10351), equation 7; layer j of M follows layer
    (j + 1) L / M - 1 of the teacher's L. Deviations from huawei-noah's code: the mean of a text is
    over its own tokens, where the code has zeros at the keys that are padding and divides by all,
    and counts the queries that are padding.

    Args:
        heads: of the attention of both networks.

    Raises:
        ValueError: the number of heads is not positive.
    """

    needs_mask = True

    def __init__(self, heads: int) -> None:
        self.attention = Attention(heads)

    def across(self, students: Sequence[Tensor], teachers: Sequence[Tensor]) -> nn.Module:
        """The distance.

        Raises:
            ValueError: the layers are not pairs, or their features no sequences of one length, or
                not to be divided among the heads.
        """
        self.attention.check(students, teachers)
        return _Scores(self.attention)


class TinyBertStates(JointComparison):
    """The mean squared distance of states, the student's behind a matrix that is learned.

    For a text, sum_j mean_{p,d} (s_jp W - t_jp)^2 over pairs of layers j, the means over the tokens
    that are no padding and over the teacher's dimensions. The first layer named has a matrix of its
    own (W_e, of the embeddings), all others share one (W_h).

    Source: Jiao et al., TinyBERT (arXiv 1909.10351), equations 8 and 9: the embeddings, and the
    layers as ``TinyBertAttention`` pairs them; with ``strategy=features_first`` the attention and
    the states are learned first and the predictions afterwards, at temperature 1 and without
    labels. ``objective=simplified_tinybert`` is that of Chen et al., Simplified TinyBERT (arXiv
    2009.07531): all in one step, and labels too; that all weigh the same is recalled and could not
    be checked. Deviations: the mean of a text is over its own
    tokens, where huawei-noah's code counts padding; that code has one linear layer with a bias for
    the embeddings and all layers.
    """

    needs_mask = True

    def across(self, students: Sequence[Tensor], teachers: Sequence[Tensor]) -> nn.Module:
        """The matrices, and the distance.

        Raises:
            ValueError: the layers are not equally many, or those that share a matrix are not of one
                width, or their features no sequences of one length.
        """
        check_groups(students, teachers, ("layer",))
        for own, other in zip(students[2:], teachers[2:], strict=True):
            if own.shape != students[1].shape or other.shape != teachers[1].shape:
                raise ValueError(
                    "layers behind the first share a matrix and must be of one width, got "
                    f"{_widths(students[1:])} of the student and {_widths(teachers[1:])} of a "
                    "teacher"
                )
        return _States(students, teachers)


class _Scores(nn.Module):
    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.attention = attention

    def forward(
        self, students: Sequence[Tensor], teachers: Sequence[Tensor], mask: Tensor
    ) -> Tensor:
        total = students[0].new_zeros(len(mask))
        scores = (self.attention.scores(features, mask) for features in (students, teachers))
        for own, other in zip(*scores, strict=True):
            # (b, h, l, l) to (b, l): the mean over heads, and over the keys that are tokens
            squares = (own - other).square().mean(dim=1)
            keys = squares.sum(dim=2) / mask.sum(dim=1, keepdim=True).clamp(min=1)
            total = total + token_mean(keys, mask)
        return total


class _States(nn.Module):
    def __init__(self, students: Sequence[Tensor], teachers: Sequence[Tensor]) -> None:
        super().__init__()
        widths = [(s.shape[2], t.shape[2]) for s, t in zip(students, teachers, strict=True)]
        self.projections = nn.ModuleList(nn.Linear(*each, bias=False) for each in widths[:2])

    def forward(
        self, students: Sequence[Tensor], teachers: Sequence[Tensor], mask: Tensor
    ) -> Tensor:
        values = []
        for number, (student, teacher) in enumerate(zip(students, teachers, strict=True)):
            own = self.projections[min(number, 1)](cleared(wide(student), mask))
            difference = own - cleared(wide(teacher), mask)
            values.append(token_mean(difference.square().mean(dim=2), mask))
        return torch.stack(values).sum(dim=0)


def _widths(features: Sequence[Tensor]) -> str:
    return ", ".join(str(feature.shape[2]) for feature in features)
