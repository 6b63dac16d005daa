"""Similarity-preserving distillation: which samples of a batch are alike."""

from __future__ import annotations

from torch import Tensor, nn

from ensemble_kd.functional import unit, wide
from ensemble_kd.objectives.comparison import Comparison


class Similarity(Comparison):
    """The squared distance of two matrices of inner products, their rows of unit length.

    G~ = Q Q' with a row of Q for each sample, all of its values; G = G~ with each row divided by
    its length; the loss is |G_t - G_s|^2 / b^2. Nothing is learned, and features may have any
    shapes.

    Source: Tung and Mori, Similarity-Preserving Knowledge Distillation (arXiv 1907.09682),
    equations 2 to 4. The loss belongs to the batch: sample i carries the i-th row of the matrices,
    sum_j (G_t,ij - G_s,ij)^2 / b, so that the mean over the samples is the published loss. A
    sample's weight for a teacher applies to its row. Deviation: a row of zeros stays zero. The
    batch is the part of it that one process sees; a batch of one is alike in all networks: zero.
    """

    def between(self, student: Tensor, teacher: Tensor) -> nn.Module:
        """The distance."""
        return _Similarity()


class _Similarity(nn.Module):
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        difference = _likeness(student) - _likeness(teacher.detach())
        return difference.square().mean(dim=1)


def _likeness(feature: Tensor) -> Tensor:
    """(b, b) inner products with rows of unit length."""
    rows = wide(feature).reshape(len(feature), -1)
    products = rows @ rows.mT
    return unit(products)
