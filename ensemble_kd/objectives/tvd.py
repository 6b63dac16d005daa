"""Half the sum of the differences of probabilities."""

from __future__ import annotations

from torch import Tensor

from ensemble_kd.functional import Merge, checked_merge, merged, teachers_logits
from ensemble_kd.functional import total_variation_of_logs as total_variation
from ensemble_kd.objectives.objective import Objective
from ensemble_kd.schedules import Positive, Schedule
from ensemble_kd.types import Batch, Output, Progress


class Tvd(Objective):
    """T sum_c |p_c - q_c| / 2: the total variation distance, symmetric and within [0, T].

    Source: Wen et al., f-divergence minimisation for sequence-level distillation (arXiv
    2307.15190), the TVD variant, there over tokens and at T = 1. Deviation: teachers p and student
    q are softened by one temperature T, with the factor T and not T^2. The distance is of the first
    order in the differences of the logits, not of the second as the divergences are: its gradient
    shrinks with 1 / T, so that T keeps its size. The gradient vanishes where the student is sure,
    right or wrong, and jumps where p_c = q_c (zero there).

    The student's gradient flows through the student's logits and, for a weighting that is learned,
    through the weights; the teachers receive none.

    Args:
        temperature: T, a positive number or a schedule of the stage's progress.
        merge: how several teachers become one: ``losses`` (the weighted sum of the distances),
            ``probabilities`` (from the weighted mean of the softened probabilities) or ``logits``
            (from the softened weighted mean of the logits); three different gradients. ``losses``
            draw each probability towards the weighted *median* of the teachers'.

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
        """(*,) distance of each sample; zero, with zero gradient, where all weights are zero.

        Raises:
            ValueError: there is no teacher, a teacher's logits differ in shape from the student's,
                or the weights are not (m, *).
        """
        logits = teachers_logits(teachers, student, weights)
        temperature = self.temperature(progress.fraction)
        return temperature * merged(
            total_variation, logits, student.logits, weights, temperature, self.merge
        )
