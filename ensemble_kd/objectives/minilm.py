"""MiniLMv2: how the tokens' queries, keys and values relate to each other."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ensemble_kd.functional import kl_of_logs, wide
from ensemble_kd.objectives.comparison import JointComparison
from ensemble_kd.objectives.tokens import (
    check_groups,
    check_heads,
    cleared,
    in_heads,
    log_attention,
    scaled_products,
    token_mean,
)

VECTORS = ("query", "key", "value")


class MiniLm(JointComparison):
    """KL(teacher || student) of the relations among queries, among keys and among values.

    For a text, sum_a w_a mean_{r,p} KL(T_arp || S_arp), a being queries, keys, values. The vectors
    of all attention heads side by side are divided anew into relation heads r, and the relation of
    token p to the others is softmax(x_p X^T / sqrt(d / r)), over the tokens that are no padding.
    The networks may differ in width, depth and attention heads. Nothing is learned. Layers are
    named as query, key, value of one layer, or of several, whose values are added.

    Source: Wang et al., MiniLMv2 (arXiv 2012.15828), equations 4 to 7: the last layer of the
    student; the last one of a base-size teacher and an upper-middle one of a large teacher (21 of
    24 of BERT-large); 48 relation heads for base size, 64 for large; weights of a third each. The
    paper adds no labels and no soft targets, which the configuration does.

    Args:
        heads: relation heads; divides the widths of both networks.
        weights: of queries, keys and values, each >= 0, not all 0; divided by their sum.

    Raises:
        ValueError: an argument is out of range.
    """

    needs_mask = True

    def __init__(self, heads: int, weights: Sequence[float] = (1.0, 1.0, 1.0)) -> None:
        if heads < 1:
            raise ValueError(f"heads must be >= 1, got {heads}")
        usable = all(weight >= 0 and math.isfinite(weight) for weight in weights)
        if len(weights) != 3 or not usable or not any(weights):
            raise ValueError(f"weights must be three numbers >= 0, not all 0, got {list(weights)}")
        self.heads = heads
        self.weights = tuple(weight / sum(weights) for weight in weights)

    def across(self, students: Sequence[Tensor], teachers: Sequence[Tensor]) -> nn.Module:
        """The divergence.

        Raises:
            ValueError: the layers are not named in threes, or their features are no sequences of
                one length, or not to be divided among the heads.
        """
        check_groups(students, teachers, VECTORS)
        check_heads([*students, *teachers], self.heads)
        return _Relations(self.heads, self.weights)


class _Relations(nn.Module):
    def __init__(self, heads: int, weights: Sequence[float]) -> None:
        super().__init__()
        self.heads = heads
        self.weights = tuple(weights)

    def forward(
        self, students: Sequence[Tensor], teachers: Sequence[Tensor], mask: Tensor
    ) -> Tensor:
        values = []
        for number, (student, teacher) in enumerate(zip(students, teachers, strict=True)):
            weight = self.weights[number % 3]
            if weight == 0:
                continue
            apart = kl_of_logs(self._of(teacher, mask), self._of(student, mask))
            values.append(weight * token_mean(apart.mean(dim=1), mask))
        return torch.stack(values).sum(dim=0)

    def _of(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """(b, r, l, l) logarithms of the relations."""
        x = in_heads(cleared(wide(vectors), mask), self.heads)
        return log_attention(scaled_products(x, x), mask)
