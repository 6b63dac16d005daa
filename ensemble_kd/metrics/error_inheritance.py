"""How many of a student's errors are its teacher's."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

from ensemble_kd.types import UNLABELLED


class ErrorInheritance(Metric):
    """Of the labelled samples that a student gets wrong, the share on which its teacher errs alike.

    Alike means that both name the same wrong class. NaN when the student makes no error.

    Two predictors that learned from the same labels have errors in common without having learned
    from each other: a share says something beside that of a control only.

    Example:
        >>> metric = ErrorInheritance()
        >>> student = torch.tensor([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
        >>> teacher = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
        >>> metric.update(student, teacher, torch.tensor([0, 0, 1]))
        >>> float(metric.compute())
        0.5
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    inherited: Tensor
    errors: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("inherited", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("errors", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, student: Tensor, teacher: Tensor, target: Tensor) -> None:
        """Count a batch.

        Args:
            student: (*, c) logits.
            teacher: (*, c) logits.
            target: (*,) int64, the class of each sample; ``UNLABELLED`` ones do not count.
        """
        said = student.argmax(-1)
        wrong = (said != target) & (target != UNLABELLED)
        self.inherited = self.inherited + (wrong & (said == teacher.argmax(-1))).sum()
        self.errors = self.errors + wrong.sum()

    def compute(self) -> Tensor:
        """The share so far, a scalar in [0, 1]."""
        return self.inherited / self.errors
