"""A gate that is trained together with the student."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ensemble_kd.functional import log_probabilities, stacked
from ensemble_kd.types import Batch, Output, Progress
from ensemble_kd.weightings.weighting import Weighting


class Learned(Weighting):
    """softmax over the teachers of a score that a small network gives to each of them.

    The network sees the probabilities of one teacher and those of the student, and is the same for
    all teachers; hence their order and their number do not matter. It starts with equal weights.

    It descends the loss of the student through the weights, so that it learns to prefer the
    teachers whom the student matches already, and nothing tells it who is right. The merge matters
    for it: ``losses`` and ``probabilities`` give the student one gradient and the gate two.

    Source: in the manner of the logit branch of MMKD (Zhang et al., arXiv 2306.06634), whose
    network takes all teachers at once and is trained by a second-order rule; both are left out
    here.

    Args:
        classes: number of classes.
        hidden: width of the hidden layer.

    Raises:
        ValueError: an argument is not positive.
    """

    def __init__(self, classes: int, hidden: int = 32) -> None:
        super().__init__()
        for name, value in (("classes", classes), ("hidden", hidden)):
            if value < 1:
                raise ValueError(f"{name} must be a positive number, got {value}")
        self.first = nn.Linear(2 * classes, hidden)
        self.last = nn.Linear(hidden, 1, bias=False)
        nn.init.zeros_(self.last.weight)

    def forward(
        self, teachers: tuple[Output, ...], student: Output, batch: Batch, progress: Progress
    ) -> Tensor:
        """(m, *), with gradient for the gate and for nobody else."""
        said = log_probabilities(stacked(teachers, student)).exp()
        own = log_probabilities(student.logits.detach()).exp().expand_as(said)
        seen = torch.cat([said, own], dim=-1).to(self.first.weight.dtype)
        scores = self.last(self.first(seen).relu()).squeeze(-1)
        weights: Tensor = scores.to(said.dtype).softmax(dim=0)
        return weights
