"""The softened outputs of the teachers as the target of a cross-entropy."""

from __future__ import annotations

from torch import Tensor

from ensemble_kd.functional import (
    Merge,
    checked_merge,
    cross_entropy_of_logs,
    merged,
    teachers_logits,
)
from ensemble_kd.objectives.objective import Objective
from ensemble_kd.schedules import Positive, Schedule
from ensemble_kd.types import Batch, Output, Progress


class CrossEntropySoft(Objective):
    """-T^2 sum_c p_c log q_c: cross-entropy of the student q with the teachers' p, both softened.

    Source: Hinton et al. (arXiv 1503.02531), section 2, in their own form. It is ``Soft`` plus T^2
    times the entropy of the teachers: the same gradient for the student, but a value that does not
    fall to zero, and another gradient for a weighting that is learned, which it draws to teachers
    that are sure. Being linear in p, it is the same for the merges ``losses`` and
    ``probabilities``.

    The student's gradient flows through the student's logits and, for a weighting that is learned,
    through the weights; the teachers receive none.

    Args:
        temperature: T, a positive number or a schedule of the stage's progress.
        merge: how several teachers become one, as for ``Soft``.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, temperature: float | Schedule = 2.0, merge: Merge = "losses") -> None:
        super().__init__()
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
        """(*,) cross-entropy of each sample; zero, with zero gradient, where all weights are zero.

        Raises:
            ValueError: there is no teacher, a teacher's logits differ in shape from the student's,
                or the weights are not (m, *).
        """
        logits = teachers_logits(teachers, student, weights)
        temperature = self.temperature(progress.fraction)
        return temperature**2 * merged(
            cross_entropy_of_logs, logits, student.logits, weights, temperature, self.merge
        )
