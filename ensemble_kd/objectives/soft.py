"""The softened outputs of the teachers."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from ensemble_kd.functional import Merge, checked_merge, merged_kl, teachers_logits
from ensemble_kd.objectives.objective import Objective
from ensemble_kd.schedules import Positive, Schedule
from ensemble_kd.types import Batch, Output, Progress

KlReduction = Literal["batch_mean", "class_mean"]


class Soft(Objective):
    """T^2 KL(teachers || student), both softened by one temperature T.

    Source: Hinton et al. (arXiv 1503.02531), section 2, whose cross-entropy with soft targets has
    the same gradient as this divergence. T^2 keeps the size of the gradient about the same for
    every T.

    The student's gradient flows through the student's logits and, for a weighting that is learned,
    through the weights; the teachers receive none.

    Args:
        temperature: T, a positive number or a schedule of the stage's progress.
        merge: how several teachers become one: ``losses`` (the weighted sum of the divergences),
            ``probabilities`` (the divergence from the weighted mean of the softened probabilities,
            with the same gradient for the student) or ``logits`` (from the softened weighted mean
            of the logits).
        kl_reduction: ``batch_mean`` is the definition. ``class_mean`` divides by the number of
            classes, as ``KLDivLoss(reduction="mean")`` does in the published code of TAKD, DGKD,
            Tf-KD and PKD: their weights assume it.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        temperature: float | Schedule = 2.0,
        merge: Merge = "losses",
        kl_reduction: KlReduction = "batch_mean",
    ) -> None:
        super().__init__()
        if kl_reduction not in get_args(KlReduction):
            raise ValueError(
                f"kl_reduction must be one of {', '.join(get_args(KlReduction))}, "
                f"got {kl_reduction!r}"
            )
        self.temperature = Positive(temperature, "temperature")
        self.merge: Merge = checked_merge(merge)
        self.kl_reduction: KlReduction = kl_reduction

    def forward(
        self,
        student: Output,
        teachers: tuple[Output, ...],
        weights: Tensor,
        batch: Batch,
        progress: Progress,
    ) -> Tensor:
        """(*,) divergence of each sample; zero, with zero gradient, where all weights are zero.

        Raises:
            ValueError: there is no teacher, a teacher's logits differ in shape from the student's,
                or the weights are not (m, *).
        """
        logits = teachers_logits(teachers, student, weights)
        temperature = self.temperature(progress.fraction)
        values = merged_kl(logits, student.logits, weights, temperature, self.merge)
        scale = temperature**2
        if self.kl_reduction == "class_mean":
            scale /= logits.shape[-1]
        return scale * values
