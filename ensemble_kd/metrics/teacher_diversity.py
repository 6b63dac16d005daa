"""How much several teachers differ."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchmetrics import Metric

from ensemble_kd.types import UNLABELLED


class TeacherDiversity(Metric):
    r"""How much m teachers differ: in what they name, in what they get wrong, in what they believe.

    - ``disagreement``: share of the samples on which two teachers name different classes, the mean
      over all pairs of them; labels play no part.
    - ``q_statistic``: Yule's :math:`Q = (ad - bc) / (ad + bc)`, the mean over pairs, where on the
      labelled samples :math:`a` counts those that both of a pair get right, :math:`d` those that
      both get wrong, and :math:`b` and :math:`c` those that only one of them gets right. In
      [-1, 1]: 1 where one errs only where the other does, 0 where errors are independent, below
      where they avoid each other. A pair without a Q, :math:`ad + bc = 0`, as when one of the two
      is always right, is left out; NaN when all are.
    - ``js_divergence``: :math:`H(\bar p) - \frac{1}{m} \sum_k H(p_k)`, the mean over the samples,
      in bits, where :math:`\bar p` is the mean of the distributions :math:`p_k` and :math:`H` the
      entropy: the generalised Jensen-Shannon divergence with equal weights. Its maximum, by which
      it is not divided, is :math:`\log_2` of m or of the number of classes, the smaller of them.
      Labels play no part; a class of which a teacher says nothing has the probability zero.

    Sources: Kuncheva and Whitaker, Measures of Diversity in Classifier Ensembles and Their
    Relationship with the Ensemble Accuracy, Machine Learning 51 (2003), section 3.1; what they call
    disagreement is of right and wrong, here it is of classes. Lin, Divergence Measures Based on the
    Shannon Entropy, IEEE Transactions on Information Theory 37 (1991).

    Args:
        teachers: m, two or more.

    Raises:
        ValueError: there are fewer.

    Example:
        >>> metric = TeacherDiversity(2)
        >>> first = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]).log()
        >>> second = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]).log()
        >>> metric.update(torch.stack([first, second]), torch.tensor([0, 0, 0]))
        >>> {name: round(float(value), 4) for name, value in metric.compute().items()}
        {'disagreement': 0.3333, 'q_statistic': 1.0, 'js_divergence': 0.3333}
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False

    differing: Tensor
    divergence: Tensor
    count: Tensor
    both_right: Tensor
    labelled: Tensor

    def __init__(self, teachers: int) -> None:
        super().__init__()
        if teachers < 2:
            raise ValueError(f"teachers must be two or more, got {teachers}")
        self.teachers = teachers
        pairs = (teachers, teachers)
        for name, shape in (("differing", ()), ("count", ()), ("both_right", pairs)):
            self.add_state(name, torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("labelled", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("divergence", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Count a batch.

        Args:
            logits: (m, *, c) of the teachers, any floating type; computed in float32 or wider.
            target: (*,) int64, the class of each sample, ``UNLABELLED`` where it is not known.

        Raises:
            ValueError: the logits are of another number of teachers.
        """
        if len(logits) != self.teachers:
            raise ValueError(f"logits must be of {self.teachers} teachers, got {len(logits)}")
        said = logits.argmax(-1).flatten(1)
        known = (target != UNLABELLED).flatten()
        right = said == target.flatten()  # never where it is not known
        self.differing = self.differing + (said[:, None] != said).sum()
        self.both_right = self.both_right + (right[:, None] & right).sum(-1)
        self.divergence = self.divergence + _jensen_shannon(logits).sum()
        self.count = self.count + known.numel()
        self.labelled = self.labelled + known.sum()

    def compute(self) -> dict[str, Tensor]:
        """``disagreement`` in [0, 1], ``q_statistic`` in [-1, 1] and ``js_divergence`` in bits.

        NaN before the first sample; the divergence is >= 0 up to rounding.
        """
        pairs = self.teachers * (self.teachers - 1)
        return {
            "disagreement": self.differing / (pairs * self.count),
            "q_statistic": self._q_statistic(),
            "js_divergence": self.divergence / self.count,
        }

    def _q_statistic(self) -> Tensor:
        first, second = torch.triu_indices(self.teachers, self.teachers, offset=1)
        right = self.both_right.diagonal()
        both = self.both_right[first, second]
        one, other = right[first] - both, right[second] - both
        neither = self.labelled - both - one - other
        alike, unlike = both * neither, one * other
        # Where the denominator is zero, so is the numerator: NaN, which the mean leaves out.
        return torch.nanmean((alike - unlike) / (alike + unlike))


def _jensen_shannon(logits: Tensor) -> Tensor:
    """H of the mean distribution less the mean H, in bits: (m, *, c) logits to (*,)."""
    p = logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(-1)
    entropies = torch.special.entr(p).sum(-1).mean(0)
    return torch.div(torch.special.entr(p.mean(0)).sum(-1) - entropies, math.log(2))
