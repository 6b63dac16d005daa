"""From the teachers to the labels, little by little."""

from __future__ import annotations

from torch import Tensor

from ensemble_kd.functional import cross_entropy, soft_cross_entropy, stacked
from ensemble_kd.objectives.objective import Objective
from ensemble_kd.schedules import Linear, Schedule
from ensemble_kd.types import Batch, Output, Progress


class Annealed(Objective):
    """Cross-entropy with the mixed target r y + (1 - r) sum_k w_k p_k, where r rises from 0 to 1.

    No temperature and no T^2. On a sample without a label only the teachers' part counts, so that
    it fades out.

    Source: Clark et al., BAM! Born-Again Multi-Task Networks for Natural Language Understanding
    (arXiv 1907.04829), teacher annealing, there linear over the training. The schedule follows the
    fraction of the batches, which is that of the optimiser's steps however many batches they
    accumulate. It is the sum of two terms, ``Label`` under the schedule r and, up to the entropy
    of the teachers, ``Soft`` at temperature one under 1 - r; the only difference is that on partly
    labelled data those two average over different samples.

    Args:
        share: r, the share of the labels, in [0, 1] for every progress of the stage; a straight
            line from 0 to 1 if not given.

    Raises:
        ValueError: the share leaves [0, 1] at the beginning or at the end of the stage.
    """

    def __init__(self, share: Schedule | None = None) -> None:
        super().__init__()
        self.share = share or Linear(0.0, 1.0)
        self._share(0.0)
        self._share(1.0)

    def forward(
        self,
        student: Output,
        teachers: tuple[Output, ...],
        weights: Tensor,
        batch: Batch,
        progress: Progress,
    ) -> Tensor:
        """(*,) cross-entropy of each sample.

        Raises:
            ValueError: there is no teacher, its logits differ in shape from the student's, or the
                share is out of range.
        """
        if not teachers:
            raise ValueError("an annealed target needs at least one teacher, got none")
        share = self._share(progress.fraction)
        hard = cross_entropy(student.logits, batch.target)
        each = soft_cross_entropy(stacked(teachers, student), student.logits)
        return share * hard + (1 - share) * (weights * each).sum(dim=0)

    def _share(self, fraction: float) -> float:
        share = self.share(fraction)
        if not 0 <= share <= 1:
            raise ValueError(f"share must be in [0, 1], got {share} at {fraction:g} of the stage")
        return share
