"""One teacher at a time."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ensemble_kd.functional import spread
from ensemble_kd.types import Batch, Output, Progress
from ensemble_kd.weightings.draws import draws
from ensemble_kd.weightings.weighting import Weighting


class Random(Weighting):
    """One teacher for each batch, all equally likely.

    Source: MEAL (Shen et al., arXiv 1812.02425), its choice of the teacher.

    Args:
        seed: with ``progress.step`` it determines the choice.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed

    def forward(
        self, teachers: tuple[Output, ...], student: Output, batch: Batch, progress: Progress
    ) -> Tensor:
        """(m, *), one for the chosen teacher and zero for the others."""
        count = len(teachers)
        chosen = (draws(self.seed, progress.step, ()) * count).long()
        weights = F.one_hot(chosen, count) if count else torch.empty(0)
        return spread(weights, student.logits)
