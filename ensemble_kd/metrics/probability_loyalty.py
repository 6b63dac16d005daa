"""How near a student's probabilities are to a reference's, between zero and one."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchmetrics import Metric


class ProbabilityLoyalty(Metric):
    r"""Mean of :math:`1 - \sqrt{\mathrm{JSD}(p, q)}` over the samples; labels play no part.

    :math:`\mathrm{JSD}(p, q) = (\mathrm{KL}(p \,\|\, m) + \mathrm{KL}(q \,\|\, m)) / 2` with
    :math:`m = (p + q) / 2` is taken in bits, so that it is at most 1 and the loyalty in [0, 1]: 1
    where both say the same, 0 where neither thinks possible what the other does.

    Source: the probability loyalty of Xu et al., Beyond Preserved Accuracy (arXiv 2109.03228). The
    authors' repository recommends ``scipy.spatial.distance.jensenshannon``, which is the root
    already, and of nats unless told otherwise: taken so, the loyalty is never below 0.17.

    Example:
        >>> metric = ProbabilityLoyalty()
        >>> first = torch.tensor([[0.5, 0.5], [1.0, 0.0]]).log()
        >>> metric.update(first, torch.tensor([[0.5, 0.5], [0.0, 1.0]]).log())
        >>> float(metric.compute())
        0.5
    """

    is_differentiable = True  # but where both say the same
    higher_is_better = True
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
            student: (*, c) logits of one predictor, any floating type; computed in float32 or
                wider.
            reference: (*, c) logits of the other.
        """
        both = torch.promote_types(student.dtype, reference.dtype)
        wide = torch.promote_types(both, torch.float32)
        divergence = _jensen_shannon(student.to(wide).softmax(-1), reference.to(wide).softmax(-1))
        loyalty = 1 - (divergence / math.log(2)).clamp(0, 1).sqrt()
        self.total = self.total + loyalty.sum()
        self.count = self.count + loyalty.numel()

    def compute(self) -> Tensor:
        """The mean so far, a scalar in [0, 1]; NaN before the first sample."""
        return self.total / self.count


def _jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    """JSD of probabilities (*, c), in nats: (*,).

    Not as two KL divergences, whose sum is near zero while its terms are not: the root would make
    much of what rounding leaves. With s = p + q and d = (p - q) / s, each class gives
    s / 4 ((1 + d) log(1 + d) + (1 - d) log(1 - d)), which is of the order of d^2.
    """
    both = p + q
    gap = torch.where(both > 0, (p - q) / both, 0.0)
    apart = torch.special.xlog1py(1 + gap, gap) + torch.special.xlog1py(1 - gap, -gap)
    return torch.sum(both / 4 * apart, -1)
