"""How often at least one of several predictors is right."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

from ensemble_kd.types import UNLABELLED


class OracleAccuracy(Metric):
    """Share of the labelled samples that at least one of m predictors gets right.

    What an oracle would reach that knows for each sample whom to ask: more than any choice among
    the predictors can, though a mixture of them may. NaN when no sample is labelled.

    Source: the oracle of Kuncheva, A Theoretical Study on Six Classifier Fusion Strategies, IEEE
    Transactions on Pattern Analysis and Machine Intelligence 24 (2002).

    Example:
        >>> metric = OracleAccuracy()
        >>> logits = torch.tensor([[[0.0, 1.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]])
        >>> metric.update(logits, torch.tensor([0, 0]))
        >>> float(metric.compute())
        0.5
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    right: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("right", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Count a batch.

        Args:
            logits: (m, *, c) of the predictors.
            target: (*,) int64, the class of each sample; ``UNLABELLED`` ones do not count.
        """
        found = (logits.argmax(-1) == target).any(0)  # never where it is not known
        self.right = self.right + found.sum()
        self.count = self.count + (target != UNLABELLED).sum()

    def compute(self) -> Tensor:
        """The share so far, a scalar in [0, 1]."""
        return self.right / self.count
