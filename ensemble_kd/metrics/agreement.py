"""How often two predictors name the same class."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class Agreement(Metric):
    """Share of the samples on which two predictors rank the same class first; labels play no part.

    Sources: the top-1 agreement of Stanton et al., Does Knowledge Distillation Really Work?
    (arXiv 2106.05945), equation 4. The label loyalty of Xu et al., Beyond Preserved Accuracy
    (arXiv 2109.03228), is the same: a student's accuracy where the labels are the teacher's.

    Example:
        >>> metric = Agreement()
        >>> first = torch.tensor([[0.0, 1.0], [2.0, 1.0]])
        >>> metric.update(first, torch.tensor([[0.0, 9.0], [0.0, 1.0]]))
        >>> float(metric.compute())
        0.5
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    matches: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("matches", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, first: Tensor, second: Tensor) -> None:
        """Count a batch.

        Args:
            first: (*, c) logits of one predictor.
            second: (*, c) logits of the other.
        """
        same = first.argmax(-1) == second.argmax(-1)
        self.matches = self.matches + same.sum()
        self.count = self.count + same.numel()

    def compute(self) -> Tensor:
        """The share so far, a scalar in [0, 1]; NaN before the first sample."""
        return self.matches / self.count
