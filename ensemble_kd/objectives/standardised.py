"""The softened outputs of the teachers, whatever the size of their logits."""

from __future__ import annotations

from torch import Tensor

from ensemble_kd.functional import Merge, checked_merge, merged_kl, standardise, teachers_logits
from ensemble_kd.objectives.objective import Objective
from ensemble_kd.schedules import Positive, Schedule
from ensemble_kd.types import Batch, Output, Progress


class Standardised(Objective):
    """T^2 KL(teachers || student) of logits that are standardised first, (z - mean) / std.

    The student need not have the teachers' range of logits but only the relations within it; a
    shift and a positive factor on anybody's logits change nothing.

    Source: Sun et al., Logit Standardization in Knowledge Distillation (arXiv 2403.01427),
    the Z-score pre-process with the base temperature T; the standard deviation divides by the
    number of classes c. The released code (sunshangquan/logit-standardization-KD) divides by c - 1,
    so that its T is the T sqrt(c / (c - 1)) of here, and adds 1e-7 to the deviation. Deviation:
    logits that are all the same become zeros with zero gradient instead.

    With two classes standardised logits are +-1: only the order is taught, without a gradient. The
    student's gradient flows through the student's logits, their mean and deviation included, and,
    for a weighting that is learned, through the weights; the teachers receive none.

    Args:
        temperature: T, a positive number or a schedule of the stage's progress.
        merge: how several teachers become one, as for ``Soft``, each standardised by itself
            first: under ``logits`` the target is the softmax of the mean of standardised logits.

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
        """(*,) divergence of each sample; zero, with zero gradient, where all weights are zero.

        Raises:
            ValueError: there is no teacher, a teacher's logits differ in shape from the student's,
                or the weights are not (m, *).
        """
        logits = teachers_logits(teachers, student, weights)
        temperature = self.temperature(progress.fraction)
        return temperature**2 * merged_kl(
            standardise(logits), standardise(student.logits), weights, temperature, self.merge
        )
