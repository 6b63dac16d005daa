"""Probabilistic knowledge transfer: how likely each sample is another's neighbour."""

from __future__ import annotations

from torch import Tensor, nn

from ensemble_kd.functional import kl_of_logs, unit, wide
from ensemble_kd.objectives.comparison import Comparison

SMALLEST = 1e-7
"""The smallest affinity of two samples: opposite ones have none, and no logarithm."""


class Pkt(Comparison):
    """KL(p_i || q_i) between the neighbours of sample i in the teacher's space and the student's.

    The probability of j given i is K(x_i, x_j) / sum_(k != i) K(x_i, x_k) for j != i, with the
    affinity K = (cosine + 1) / 2. Nothing is learned, and features may have any shapes.

    Source: Passalis and Tefas, Learning Deep Representations with Probabilistic Knowledge Transfer
    (arXiv 1803.10837): its conditional probabilities, the cosine kernel and the divergence
    sum_i sum_(j != i). Sample i carries the divergence of its own neighbours, so the mean over the
    samples is the paper's sum over b. Deviations: an affinity is at least 1e-7, in place of the
    1e-7 that the authors' code adds to probabilities; that code also counts each sample as its own
    neighbour and takes the mean over all b^2 pairs, so its weight 30000 is 30000 / b here. A
    feature of zeros has a cosine of zero with all others. With two samples or fewer there is
    nothing to compare: zero. The batch is the part of it that one process sees.
    """

    def between(self, student: Tensor, teacher: Tensor) -> nn.Module:
        """The divergence."""
        return _Neighbours()


class _Neighbours(nn.Module):
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return kl_of_logs(_neighbours(teacher.detach()), _neighbours(student))


def _neighbours(feature: Tensor) -> Tensor:
    """(b, b - 1) log-probabilities of the others, for each sample."""
    rows = wide(feature).reshape(len(feature), -1)
    rows = unit(rows)
    affinity = ((rows @ rows.mT + 1) / 2).clamp(min=SMALLEST)
    return _others(affinity).log().log_softmax(dim=1)


def _others(square: Tensor) -> Tensor:
    """A square matrix without its diagonal, (n, n - 1)."""
    n = len(square)
    return square.flatten()[1:].view(n - 1, n + 1)[:, :-1].reshape(n, n - 1)
