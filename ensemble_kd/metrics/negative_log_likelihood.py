"""How surprised a predictor is by the true classes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric

from ensemble_kd.types import UNLABELLED


class NegativeLogLikelihood(Metric):
    r"""Mean of :math:`-\log p(y \mid x)` over the labelled samples, in nats.

    A mean over samples, however they are cut into batches; NaN when no sample is labelled.

    Example:
        >>> metric = NegativeLogLikelihood()
        >>> metric.update(torch.tensor([[0.0, 0.0], [1.0, 3.0]]), torch.tensor([1, UNLABELLED]))
        >>> round(float(metric.compute()), 4)
        0.6931
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
        wide = logits.flatten(0, -2).to(torch.promote_types(logits.dtype, torch.float32))
        classes = target.flatten()
        self.total = self.total + F.cross_entropy(
            wide, classes, ignore_index=UNLABELLED, reduction="sum"
        )
        self.count = self.count + (classes != UNLABELLED).sum()

    def compute(self) -> Tensor:
        """The mean so far, a scalar."""
        return self.total / self.count
