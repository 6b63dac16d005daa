"""How far the probabilities are from the true classes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric

from ensemble_kd.types import UNLABELLED


class Brier(Metric):
    r"""Mean of :math:`\sum_c (p_c - [c = y])^2` over the labelled samples.

    The sum over all classes of the original definition, so in [0, 2], also with two classes: the
    other convention, which looks at one of two classes only, gives half of it. NaN when no sample
    is labelled.

    Source: Brier, Verification of Forecasts Expressed in Terms of Probability, Monthly Weather
    Review 78 (1950).

    Example:
        >>> metric = Brier()
        >>> metric.update(torch.tensor([[0.0, 0.0], [1.0, 3.0]]), torch.tensor([1, UNLABELLED]))
        >>> float(metric.compute())
        0.5
    """

    is_differentiable = True
    higher_is_better = False
    full_state_update = False

    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Count a batch.

        Args:
            logits: (*, c), any floating type; computed in float32 or wider.
            target: (*,) int64, the class of each sample; ``UNLABELLED`` ones do not count.
        """
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        known = target != UNLABELLED
        true = F.one_hot(target.masked_fill(~known, 0), logits.shape[-1])
        costs = (wide.softmax(-1) - true).square().sum(-1)
        self.total = self.total + torch.where(known, costs, 0.0).sum()
        self.count = self.count + known.sum()

    def compute(self) -> Tensor:
        """The mean so far, a scalar in [0, 2]."""
        return self.total / self.count
