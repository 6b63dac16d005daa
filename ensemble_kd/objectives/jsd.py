"""Between the two directions of the divergence."""

from __future__ import annotations

from torch import Tensor

from ensemble_kd.functional import (
    Merge,
    checked_merge,
    jensen_shannon_of_logs,
    merged,
    teachers_logits,
)
from ensemble_kd.objectives.objective import Objective
from ensemble_kd.schedules import Positive, Schedule
from ensemble_kd.types import Batch, Output, Progress


class Jsd(Objective):
    """T^2 [beta KL(p || m) + (1 - beta) KL(q || m)] with m = beta p + (1 - beta) q.

    The generalised Jensen-Shannon divergence of the teachers p and the student q, both softened by
    one temperature T; bounded by T^2 log 2 whatever the logits.

    Source: Agarwal et al., GKD (arXiv 2306.13649), the generalised JSD of section 2, with their
    beta: divided by beta it tends to KL(p || q) for beta -> 0 (``Soft``), and divided by 1 - beta
    to KL(q || p) for beta -> 1 (``ReverseKl``). It is not divided here, so that near the limits it
    needs a larger weight. Deviations: the temperature and its T^2, as for ``Soft``; the samples are
    those of the batch and not the student's own.

    The student's gradient flows through the student's logits, in q and in m, and, for a weighting
    that is learned, through the weights; the teachers receive none.

    Args:
        beta: the share of the teachers in the mixture, in (0, 1).
        temperature: T, a positive number or a schedule of the stage's progress.
        merge: how several teachers become one: ``losses`` (the weighted sum of the divergences),
            ``probabilities`` (from the weighted mean of the softened probabilities) or ``logits``
            (from the softened weighted mean of the logits); three different gradients.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        beta: float = 0.5,
        temperature: float | Schedule = 2.0,
        merge: Merge = "losses",
    ) -> None:
        super().__init__()
        if not 0 < beta < 1:
            raise ValueError(f"beta must be in (0, 1), got {beta}")
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
        """(*,) divergence of each sample; zero, with zero gradient, where all weights are zero.

        Raises:
            ValueError: there is no teacher, a teacher's logits differ in shape from the student's,
                or the weights are not (m, *).
        """
        logits = teachers_logits(teachers, student, weights)
        temperature = self.temperature(progress.fraction)
        return temperature**2 * merged(
            self._divergence, logits, student.logits, weights, temperature, self.merge
        )

    def _divergence(self, log_t: Tensor, log_p: Tensor) -> Tensor:
        return jensen_shannon_of_logs(log_t, log_p, self.beta)
