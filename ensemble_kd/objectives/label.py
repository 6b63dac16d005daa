"""The labels of the data."""

from __future__ import annotations

from torch import Tensor

from ensemble_kd.functional import cross_entropy
from ensemble_kd.objectives.objective import Objective
from ensemble_kd.types import Batch, Output, Progress


class Label(Objective):
    """Cross-entropy with the true class; the teachers are not asked.

    Args:
        smoothing: share of the target that is spread over all classes, in [0, 1) (Szegedy et al.,
            arXiv 1512.00567, section 7).

    Raises:
        ValueError: the smoothing is out of range.
    """

    needs_labels = True
    needs_teachers = False

    def __init__(self, smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0 <= smoothing < 1:
            raise ValueError(f"smoothing must be in [0, 1), got {smoothing}")
        self.smoothing = smoothing

    def forward(
        self,
        student: Output,
        teachers: tuple[Output, ...],
        weights: Tensor,
        batch: Batch,
        progress: Progress,
    ) -> Tensor:
        """(*,) cross-entropy of each sample, zero where the target is ``UNLABELLED``."""
        return cross_entropy(student.logits, batch.target, self.smoothing)
