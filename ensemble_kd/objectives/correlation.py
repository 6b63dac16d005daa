"""Correlation congruence: how the samples of a batch relate, through a Gaussian kernel."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ensemble_kd.functional import unit, wide
from ensemble_kd.objectives.comparison import Comparison


class Correlation(Comparison):
    """The squared distance of two matrices of kernel values between samples, over b^2.

    The kernel of two features of unit length is exp(-gamma |x - y|^2), by its Taylor series in
    their inner product up to some order P:
    exp(-2 gamma) sum_(p=0..P) (2 gamma)^p / p! (x'y)^p. Nothing is learned, and features may have
    any shapes.

    Source: Peng et al., Correlation Congruence for Knowledge Distillation (arXiv 1904.01802), its
    loss over n^2 and its Gaussian kernel in the Taylor form. The loss belongs to the batch: sample
    i carries the i-th row of the matrices, sum_j (K_s,ij - K_t,ij)^2 / b, so that the mean over the
    samples is the published loss. A sample's weight for a teacher applies to its row. Deviations:
    no layer that brings both features to one width, which the kernel does not need; a feature of
    zeros stays zero; batches are drawn as all others are, without the paper's samplers. Not to be
    confused with the loss that HobbitLong/RepDistiller calls by this name, which compares products
    of differences within the batch.

    Args:
        gamma: how fast the kernel falls with the distance, > 0.
        order: P, the highest power, >= 1.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, gamma: float = 0.4, order: int = 2) -> None:
        if not (gamma > 0 and math.isfinite(gamma)):
            raise ValueError(f"gamma must be a finite number > 0, got {gamma}")
        if order < 1:
            raise ValueError(f"order must be >= 1, got {order}")
        self.gamma = gamma
        self.order = order

    def between(self, student: Tensor, teacher: Tensor) -> nn.Module:
        """The distance."""
        scale = math.exp(-2 * self.gamma)
        factors = [scale * (2 * self.gamma) ** p / math.factorial(p) for p in range(self.order + 1)]
        return _Congruence(tuple(factors))


class _Congruence(nn.Module):
    def __init__(self, factors: tuple[float, ...]) -> None:
        super().__init__()
        self.factors = factors

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        difference = self._kernel(student) - self._kernel(teacher.detach())
        return difference.square().mean(dim=1)

    def _kernel(self, feature: Tensor) -> Tensor:
        """(b, b) kernel values of all pairs of samples."""
        rows = wide(feature).reshape(len(feature), -1)
        rows = unit(rows)
        cosines = rows @ rows.mT
        value = torch.zeros_like(cosines)
        for factor in reversed(self.factors):
            value = value * cosines + factor
        return value
