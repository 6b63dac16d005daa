"""The softened outputs of the teachers, the target class and the others apart."""

from __future__ import annotations

import math

from torch import Tensor

from ensemble_kd.functional import Merge, checked_merge, decoupled_of_logs, merged, teachers_logits
from ensemble_kd.objectives.objective import Objective
from ensemble_kd.schedules import Positive, Schedule
from ensemble_kd.types import UNLABELLED, Batch, Output, Progress


class Dkd(Objective):
    """T^2 (alpha TCKD + beta NCKD): how sure of the label, and how the other classes compare.

    TCKD is the KL divergence of (label, rest), NCKD that over the other classes when the label is
    left out, teachers first, all softened by one temperature T. ``Soft`` is TCKD plus NCKD times
    the rest that the teacher sees: where the teacher is sure, it teaches nothing of
    the others. alpha = beta = 1 is thus ``Soft`` plus the teacher's share of the label times NCKD.

    Source: Zhao et al., Decoupled Knowledge Distillation (arXiv 2203.08679), section 3, and
    megvii-research/mdistiller at a08d46f: alpha = 1, beta = 8 (0.5 to 8 by pair), T = 4, a warm-up
    of both parts over 20 of 240 epochs. The warm-up is the schedule of the term. Deviations: in log
    space, where the code takes the logarithm of a probability and is infinite for a student who is
    sure; the label is left out of NCKD, where the code subtracts 1000 from its logit.

    The student's gradient flows through the student's logits and, for a weighting that is learned,
    through the weights; the teachers receive none.

    Args:
        alpha: weight of TCKD, >= 0.
        beta: weight of NCKD, >= 0.
        temperature: T, a positive number or a schedule of the stage's progress.
        merge: how several teachers become one: ``losses`` (the weighted sum of the values),
            ``probabilities`` (one target from the weighted mean of the softened probabilities) or
            ``logits`` (from the softened weighted mean of the logits); three different gradients.

    Raises:
        ValueError: an argument is out of range.
    """

    needs_labels = True

    def __init__(
        self,
        alpha: float = 1.0,
        beta: float = 8.0,
        temperature: float | Schedule = 4.0,
        merge: Merge = "losses",
    ) -> None:
        super().__init__()
        for name, value in (("alpha", alpha), ("beta", beta)):
            if not (value >= 0 and math.isfinite(value)):
                raise ValueError(f"{name} must be a finite number >= 0, got {value}")
        self.alpha = alpha
        self.beta = beta
        self.temperature = Positive(temperature, "temperature")
        self.merge: Merge = checked_merge(merge)

    def forward(
        self,
        student: Output,
        teachers: tuple[Output, ...],
        weights: Tensor,
        batch: Batch,
        progress: Progress,
    ) -> Tensor:
        """(*,) value of each sample, zero where the target is ``UNLABELLED``.

        Raises:
            ValueError: there is no teacher, a teacher's logits differ in shape from the student's,
                or the weights are not (m, *).
        """
        logits = teachers_logits(teachers, student, weights)
        temperature = self.temperature(progress.fraction)
        known = batch.target != UNLABELLED
        target = batch.target.where(known, 0)

        def divergence(log_t: Tensor, log_p: Tensor) -> Tensor:
            of_target, of_others = decoupled_of_logs(log_t, log_p, target)
            return self.alpha * of_target + self.beta * of_others

        values = merged(divergence, logits, student.logits, weights, temperature, self.merge)
        return temperature**2 * values.where(known, values.new_zeros(()))
