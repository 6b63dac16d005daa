"""All teachers alike."""

from __future__ import annotations

from torch import Tensor

from ensemble_kd.functional import wide
from ensemble_kd.types import Batch, Output, Progress
from ensemble_kd.weightings.weighting import Weighting


class Uniform(Weighting):
    """1/m for each of the m teachers."""

    def forward(
        self, teachers: tuple[Output, ...], student: Output, batch: Batch, progress: Progress
    ) -> Tensor:
        """(m, *) with the value 1/m."""
        count, logits = len(teachers), wide(student.logits)
        return logits.new_full((count, *logits.shape[:-1]), 1 / max(count, 1))
