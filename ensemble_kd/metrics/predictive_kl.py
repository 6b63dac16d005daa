"""How far a student's predictions are from a reference's."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class PredictiveKL(Metric):
    r"""Mean of :math:`\mathrm{KL}(q \,\|\, p)` over the samples, in nats, at temperature one.

    :math:`q` is the reference's predictive distribution and :math:`p` the student's; labels play no
    part.

    Source: the predictive KL of Stanton et al., Does Knowledge Distillation Really Work?
    (arXiv 2106.05945), equation 5.

    Example:
        >>> metric = PredictiveKL()
        >>> metric.update(torch.zeros(1, 2), torch.tensor([[0.75, 0.25]]).log())
        >>> round(float(metric.compute()), 4)
        0.1308
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

    def update(self, student: Tensor, reference: Tensor) -> None:
        """Count a batch.

        Args:
            student: (*, c) logits of :math:`p`, any floating type; computed in float32 or wider.
            reference: (*, c) logits of :math:`q`.
        """
        both = torch.promote_types(student.dtype, reference.dtype)
        wide = torch.promote_types(both, torch.float32)
        log_p = student.to(wide).log_softmax(-1)
        log_q = reference.to(wide).log_softmax(-1)
        # What the reference rules out costs nothing, as 0 log 0 = 0, whatever the student says.
        ruled_out = log_q == -torch.inf
        costs = (log_q.exp() * (log_q - log_p)).masked_fill(ruled_out, 0.0)
        self.total = self.total + costs.sum()
        self.count = self.count + costs[..., 0].numel()

    def compute(self) -> Tensor:
        """The mean so far, a scalar >= 0 up to rounding; NaN before the first sample."""
        return self.total / self.count
