"""Weights given by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ensemble_kd.errors import UserError
from ensemble_kd.functional import spread
from ensemble_kd.types import Batch, Output, Progress
from ensemble_kd.weightings.weighting import Weighting


class Fixed(Weighting):
    """The same weights for every sample.

    Args:
        weights: one number per teacher, finite and >= 0; they are divided by their sum.

    Raises:
        ValueError: a weight is negative or not finite, or their sum is not positive.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        super().__init__()
        given = [float(weight) for weight in weights]
        if not all(weight >= 0 and math.isfinite(weight) for weight in given):
            raise ValueError(f"weights must be finite numbers >= 0, got {given}")
        total = sum(given)
        if not (total > 0 and math.isfinite(total)):
            raise ValueError(f"weights must have a positive finite sum, got {given}")
        self.weights = tuple(weight / total for weight in given)

    def forward(
        self, teachers: tuple[Output, ...], student: Output, batch: Batch, progress: Progress
    ) -> Tensor:
        """(m, *), the weights divided by their sum.

        Raises:
            UserError: there are not as many teachers as weights.
        """
        if teachers and len(teachers) != len(self.weights):
            raise UserError(
                f"weighting: weights must name one weight per teacher, "
                f"got {len(self.weights)} weights for {len(teachers)} teachers"
            )
        weights = self.weights if teachers else ()
        return spread(torch.tensor(weights, dtype=torch.float64), student.logits)
