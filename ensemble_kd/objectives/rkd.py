"""Relational distillation: distances and angles between the samples of a batch."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ensemble_kd.functional import wide
from ensemble_kd.objectives.comparison import Comparison


class Rkd(Comparison):
    """distance * L_D + angle * L_A: Huber losses of distances and of angles between samples.

    L_D compares |x_i - x_j| / mu of student and teacher over all pairs, mu being the mean of the
    distances that are not zero, of each network for itself: the loss does not see the scale of the
    features. L_A compares the cosines of the angles at x_i between x_j and x_k, over all triplets.
    Nothing is learned, and features may have any shapes. It needs memory for b^2 times the values
    of a feature and b^3: choose pooled features.

    Source: Park et al., Relational Knowledge Distillation (arXiv 1904.05068), equations 6 to 10,
    and lenscloth/RKD @21fae20 for the means: over all b^2 pairs and b^3 triplets, those with equal
    members included, where distances and cosines are zero, or one for a direction and itself. The
    student's mu has gradient, as there. Both losses belong to the batch: sample i carries the mean
    over the pairs (i, j) and over the triplets with their vertex at i, so that the mean over the
    samples is the loss. A sample's weight for a teacher applies to what it carries. Deviations: two
    samples in one place have no direction, so their cosine is zero without gradient, and a batch in
    one place has distances of zero; no small numbers are added.

    Args:
        distance: weight of the distances, >= 0: 25 in the paper's classification, 1 in its metric
            learning.
        angle: weight of the angles, >= 0: 50 there, 2 in metric learning.

    Raises:
        ValueError: a weight is out of range.
    """

    def __init__(self, distance: float = 25.0, angle: float = 50.0) -> None:
        for name, value in (("distance", distance), ("angle", angle)):
            if not (value >= 0 and math.isfinite(value)):
                raise ValueError(f"{name} must be a finite number >= 0, got {value}")
        self.distance = distance
        self.angle = angle

    def between(self, student: Tensor, teacher: Tensor) -> nn.Module:
        """The two losses."""
        return _Relations(self.distance, self.angle)


class _Relations(nn.Module):
    def __init__(self, distance: float, angle: float) -> None:
        super().__init__()
        self.distance = distance
        self.angle = angle

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        distances, cosines = _relations(student, self.angle > 0)
        with torch.no_grad():
            distances_t, cosines_t = _relations(teacher, self.angle > 0)
        # (b, b) over the pairs, (b, b, b) over the triplets with their vertex first
        of_pairs = F.smooth_l1_loss(distances, distances_t, reduction="none").mean(dim=1)
        of_angles = F.smooth_l1_loss(cosines, cosines_t, reduction="none").mean(dim=(1, 2))
        return self.distance * of_pairs + self.angle * of_angles


def _relations(feature: Tensor, angles: bool) -> tuple[Tensor, Tensor]:
    """Distances (b, b) over their mean; cosines (b, b, b) at the sample of the first axis."""
    x = wide(feature).reshape(len(feature), -1)
    apart = x.unsqueeze(0) - x.unsqueeze(1)
    distances = torch.linalg.vector_norm(apart, dim=2)
    mean = distances.sum() / (distances > 0).sum().clamp(min=1)
    scaled = distances / torch.where(mean > 0, mean, 1.0)
    if not angles:
        return scaled, torch.zeros_like(scaled).unsqueeze(2)
    length = distances.unsqueeze(2)
    # Not a small number in the denominator: zero would get a gradient as large as its inverse.
    directions = apart / torch.where(length > 0, length, 1.0)
    return scaled, directions @ directions.mT
