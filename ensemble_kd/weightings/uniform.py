"""All teachers alike."""

from __future__ import annotations

import torch
from torch import Tensor

from ensemble_kd.functional import spread
from ensemble_kd.types import Batch, Output, Progress
from ensemble_kd.weightings.weighting import Weighting


class Uniform(Weighting):
    """1/m for each of the m teachers."""

    def forward(
        self, teachers: tuple[Output, ...], student: Output, batch: Batch, progress: Progress
    ) -> Tensor:
        """(m, *) with the value 1/m."""
        count = len(teachers)
        return spread(torch.full((count,), 1 / max(count, 1)), student.logits)
