"""Teacher assistants: a chain of stages of decreasing size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ensemble_kd.build import Node
from ensemble_kd.errors import UserError
from ensemble_kd.stage import Given, Stage, derived_seed


class Assistants:
    """The teachers teach the first assistant, it the next, and the last one the student.

    Source: Mirzadeh et al., Improved Knowledge Distillation via Teacher Assistant (arXiv
    1902.03393); with ``dense``, Son et al., Densely Guided Knowledge Distillation (arXiv
    2009.08825), where every network learns from all that came before it. Deviation: the papers
    hand on the checkpoint with the best test accuracy; test data selects nothing here. DGKD sums
    the terms of its sources; here the weighting decides, so that the strength of the soft term
    stays the same.

    Args:
        assistants: networks, in the order in which they are trained; at least one.
        dense: learn from all earlier networks instead of the one before.
        drop: leave each source of a batch out with this probability, but never all of them, as in
            stochastic DGKD (whose survival is 0.75); in place of the weighting. In [0, 1).

    Raises:
        ValueError: there are no assistants, or the probability is out of range.
    """

    def __init__(
        self, assistants: Sequence[Node], dense: bool = False, drop: float | None = None
    ) -> None:
        if not assistants:
            raise ValueError("assistants must name at least one network, got an empty list")
        if drop is not None and not 0 <= drop < 1:
            raise ValueError(f"drop must be in [0, 1), got {drop}")
        self.assistants = tuple(assistants)
        self.dense = dense
        self.drop = drop

    def stages(self, last: Stage) -> tuple[Stage, ...]:
        """The stages of the chain, ending with the student's own."""
        networks = (*self.assistants, last.student)
        names = [*(f"assistant/{number}" for number in range(len(self.assistants))), last.name]
        chain: list[Stage] = []
        for name, network in zip(names, networks, strict=True):
            before = tuple(stage.name for stage in chain)
            taught_by = last.teachers + before if self.dense else before[-1:] or last.teachers
            seed = last.seed if name == last.name else derived_seed(last.seed, name)
            stage = replace(last, name=name, student=network, teachers=taught_by, seed=seed)
            chain.append(self._dropping(stage))
        return tuple(chain)

    def _dropping(self, stage: Stage) -> Stage:
        if self.drop is None:
            return stage
        if isinstance(stage.strategy, Given):
            raise UserError("strategy.drop: expected a strategy by name, got an object")
        dropped = {
            "_target_": "ensemble_kd.weightings.Dropped",
            "p": 1 - self.drop,
            "seed": stage.seed,
        }
        return replace(stage, strategy={**stage.strategy, "weighting": dropped})
