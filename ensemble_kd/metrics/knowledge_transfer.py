"""What a student takes over where its teacher and a control differ."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

COUNTS = ("positive_right", "positive_n", "negative_wrong", "negative_n")


class KnowledgeTransfer(Metric):
    """What a student takes over, for better and for worse, from a teacher, on labelled samples.

    The control is the same student without the teacher: what it gets right alone is no transfer.

    - ``positive``: of the samples that the teacher gets right and the control wrong, the share
      that the student gets right.
    - ``negative``: of the samples that the teacher gets wrong and the control right, the share
      that the student gets wrong.

    A share of no samples is NaN. ``positive_n`` and ``negative_n`` say of how many it is. A student
    that is the control under another seed has shares above zero too, as often as seeds differ.

    Example:
        >>> metric = KnowledgeTransfer()
        >>> one, two = [0.0, 1.0], [1.0, 0.0]
        >>> student, teacher = torch.tensor([one, two, two]), torch.tensor([one, one, two])
        >>> control = torch.tensor([two, two, one])
        >>> metric.update(student, teacher, control, torch.tensor([1, 1, 1]))
        >>> {name: float(value) for name, value in metric.compute().items()}
        {'positive': 0.5, 'positive_n': 2.0, 'negative': 1.0, 'negative_n': 1.0}
    """

    is_differentiable = False
    higher_is_better = None  # one of the shares is better high, the other low
    full_state_update = False

    positive_right: Tensor
    positive_n: Tensor
    negative_wrong: Tensor
    negative_n: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in COUNTS:
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, student: Tensor, teacher: Tensor, control: Tensor, target: Tensor) -> None:
        """Count a batch.

        Args:
            student: (*, c) logits.
            teacher: (*, c) logits.
            control: (*, c) logits.
            target: (*,) int64, the class of each sample; ``UNLABELLED`` ones do not count.
        """
        # Nobody gets an unlabelled sample right, so neither share is of it.
        learned, taught, alone = (said.argmax(-1) == target for said in (student, teacher, control))
        gain, loss = taught & ~alone, ~taught & alone
        self.positive_right = self.positive_right + (gain & learned).sum()
        self.positive_n = self.positive_n + gain.sum()
        self.negative_wrong = self.negative_wrong + (loss & ~learned).sum()
        self.negative_n = self.negative_n + loss.sum()

    def compute(self) -> dict[str, Tensor]:
        """``positive`` and ``negative`` in [0, 1], ``positive_n`` and ``negative_n`` int64."""
        return {
            "positive": self.positive_right / self.positive_n,
            "positive_n": self.positive_n,
            "negative": self.negative_wrong / self.negative_n,
            "negative_n": self.negative_n,
        }
