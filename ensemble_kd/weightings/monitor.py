"""Teachers that speak only where the student needs them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ensemble_kd.functional import log_probabilities, spread, stacked
from ensemble_kd.types import UNLABELLED, Batch, Output, Progress
from ensemble_kd.weightings.weighting import Weighting


class Monitor(Weighting):
    """A teacher counts where it is right and the student is wrong or unsure.

    Those who speak about a sample share equally. Where none does, all weights are zero: the soft
    terms of that sample vanish and the student is left alone with its label.

    For a sample without a label, right is what more than half of the teachers say; where there is
    no such majority, none of them speaks. A single teacher is its own majority.

    Args:
        threshold: the student is unsure where its largest probability is below this, in [0, 1];
            0 leaves only its mistakes, 1 all but certainty.

    Raises:
        ValueError: the threshold is out of range.
    """

    def __init__(self, threshold: float = 0.9) -> None:
        super().__init__()
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold must be in [0, 1], got {threshold}")
        self.threshold = threshold

    def forward(
        self, teachers: tuple[Output, ...], student: Output, batch: Batch, progress: Progress
    ) -> Tensor:
        """(m, *) that sums, for each sample, to one, or to zero where no teacher speaks."""
        said = stacked(teachers, student).argmax(dim=-1)
        right = torch.where(
            batch.target == UNLABELLED, _majority(said, student.logits.shape[-1]), batch.target
        )
        surest, guess = log_probabilities(student.logits.detach()).exp().max(dim=-1)
        needy = (guess != right) | (surest < self.threshold)
        speaks = (said == right) & needy
        voices = spread(speaks, student.logits)
        return voices / voices.sum(dim=0).clamp(min=1)

    def measurements(self, weights: Tensor) -> dict[str, Tensor]:
        """``gate``: the share of samples about which at least one teacher speaks."""
        return {"gate": weights.detach().sum(dim=0).mean()}


def _majority(said: Tensor, classes: int) -> Tensor:
    """(*,) the class that more than half of (m, *) name; -1, which nobody names, without one."""
    votes, voted = F.one_hot(said, classes).sum(dim=0).max(dim=-1)
    return torch.where(2 * votes > len(said), voted, -1)
