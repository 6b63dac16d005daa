"""Variational information distillation: how well the student predicts a teacher's features."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ensemble_kd.functional import wide
from ensemble_kd.networks.connector import Connector
from ensemble_kd.objectives.comparison import Comparison

FLOOR = 1e-5
"""The smallest variance, epsilon in the paper."""


class Vid(Comparison):
    """The mean negative log-likelihood of a teacher's feature under a Gaussian.

    For a sample, the mean over the values of (t - mu(s))^2 / (2 v) + log(v) / 2, where the mean mu
    is learned and the variance v = softplus(a) + 1e-5 has a learned a for each channel of a map, or
    for each value of a vector. The value falls below zero where the prediction is good.

    Source: Ahn et al., Variational Information Distillation for Knowledge Transfer (arXiv
    1904.05835), its Gaussian with a variance for each channel; the mean's three layers with ReLU
    between them as in HobbitLong/RepDistiller @1e2f816, which names the authors' code as its
    source. Deviations: the mean over the values of a feature in place of their sum, as there, so
    that the weight does not depend on the size of the layer; no constant log(2 pi) / 2; the layers
    have biases; maps of unlike size are interpolated to the teacher's after the first layer, in
    place of averaging the larger.

    Args:
        variance: of every channel at the start, > 1e-5.

    Raises:
        ValueError: the variance is out of range.
    """

    def __init__(self, variance: float = 5.0) -> None:
        if not (variance > FLOOR and math.isfinite(variance)):
            raise ValueError(f"variance must be a finite number > {FLOOR}, got {variance}")
        self.variance = variance

    def between(self, student: Tensor, teacher: Tensor) -> nn.Module:
        """The mean and the variances, and the likelihood."""
        mean = nn.Sequential(
            Connector(student, teacher),
            nn.ReLU(),
            Connector(teacher, teacher),
            nn.ReLU(),
            Connector(teacher, teacher),
        )
        channels = teacher.shape[1] if teacher.ndim == 4 else teacher.shape[-1]
        return _Likelihood(mean, channels, self.variance)


class _Likelihood(nn.Module):
    def __init__(self, mean: nn.Module, channels: int, variance: float) -> None:
        super().__init__()
        self.mean = mean
        above = variance - FLOOR
        # The inverse of softplus, in the form that does not overflow.
        start = above + math.log(-math.expm1(-above))
        self.unbounded = nn.Parameter(torch.full((channels,), start))

    def variances(self) -> Tensor:
        """(d,) the variance of each channel."""
        return F.softplus(wide(self.unbounded)) + FLOOR

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        variances = self.variances()
        if teacher.ndim == 4:
            variances = variances.view(-1, 1, 1)
        squared = (wide(teacher.detach()) - wide(self.mean(wide(student)))).square()
        return (squared / variances + variances.log()).flatten(1).mean(dim=1) / 2
