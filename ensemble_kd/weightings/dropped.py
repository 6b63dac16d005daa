"""A random part of the teachers."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from ensemble_kd.functional import normalise, spread
from ensemble_kd.types import Batch, Output, Progress
from ensemble_kd.weightings.draws import draws, draws_of_samples
from ensemble_kd.weightings.weighting import Weighting

Per = Literal["batch", "sample"]


class Dropped(Weighting):
    """Each teacher is kept with probability p, those who are kept share equally, never none.

    Where all would be dropped, one of them, each equally likely, is kept.

    Source: DGKD (Son et al., arXiv 2009.08825), stochastic densely guided distillation with
    survival 0.75. Deviations: the weights sum to one, where the paper sums the losses, so that the
    strength does not depend on how many are kept; the code removes exactly one teacher each time.

    Args:
        p: probability to keep a teacher, in [0, 1]. 1 is uniform, 0 keeps exactly one.
        per: whether the choice is made for each batch or for each sample.
        seed: with ``progress.step`` it determines the choice; for each sample, with
            ``Batch.index`` as well, so that it matters to no sample in which batch it is.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, p: float = 0.75, per: Per = "batch", seed: int = 0) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"p must be in [0, 1], got {p}")
        if per not in get_args(Per):
            raise ValueError(f"per must be one of {', '.join(get_args(Per))}, got {per!r}")
        self.p = p
        self.per: Per = per
        self.seed = seed

    def forward(
        self, teachers: tuple[Output, ...], student: Output, batch: Batch, progress: Progress
    ) -> Tensor:
        """(m, *), one over the number of kept teachers for them and zero for the others."""
        if self.per == "batch":
            chance = draws(self.seed, progress.step, (len(teachers),))
        else:
            own = (len(teachers), *student.logits.shape[1:-1])
            chance = draws_of_samples(self.seed, progress.step, batch.index, own).movedim(1, 0)
        # The smallest of the draws is kept in any case; none of the others is affected.
        smallest = chance.argsort(dim=0).argsort(dim=0) == 0
        weights = normalise(((chance < self.p) | smallest).double())
        return spread(weights, student.logits)
