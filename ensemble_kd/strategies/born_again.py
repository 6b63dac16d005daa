"""Generations of one network."""

from __future__ import annotations

from dataclasses import replace

from ensemble_kd.build import Node
from ensemble_kd.stage import Stage, derived_seed, with_new_weights


class BornAgain:
    """The same network again and again, each generation from new weights and taught by the last.

    The first generation learns without teachers, or from those of the run where the strategy is
    taught; the student is the last one.

    Source: Furlanello et al., Born-Again Neural Networks (arXiv 1805.04770), section 3.1, and for
    the ensemble of the generations equation 4. What a generation matches, and how strongly beside
    the labels, is what the terms of the strategy say.

    Args:
        first: the strategy of the first generation when it has no teachers, as a node.
        generations: how many are taught by another, >= 1; the student is the last of them.
        dense: each is taught by all before it instead of the one before.

    Raises:
        ValueError: there would be no generations.
    """

    def __init__(self, first: Node, generations: int = 3, dense: bool = False) -> None:
        if generations < 1:
            raise ValueError(f"generations must be >= 1, got {generations}")
        self.first = first
        self.generations = generations
        self.dense = dense

    def stages(self, last: Stage) -> tuple[Stage, ...]:
        """``generation/0``, ``generation/1`` and so on, and the student."""
        chain: list[Stage] = []
        for name in (*self._earlier(), last.name):
            before = tuple(stage.name for stage in chain)
            chain.append(
                replace(
                    last,
                    name=name,
                    student=last.student if name == last.name else with_new_weights(last.student),
                    teachers=(before if self.dense else before[-1:]) or last.teachers,
                    seed=last.seed if name == last.name else derived_seed(last.seed, name),
                )
            )
        if not last.teachers:
            alone = {"default": last.optimizers["default"]}
            chain[0] = replace(chain[0], strategy=self.first, optimizers=alone)
        return tuple(chain)

    def mixtures(self) -> dict[str, tuple[str, ...]]:
        """``generations``: the mean of all that were born again, which the paper calls BANE."""
        born_again = (*self._earlier()[1:], "student")
        return {"generations": born_again} if len(born_again) > 1 else {}

    def _earlier(self) -> tuple[str, ...]:
        return tuple(f"generation/{number}" for number in range(self.generations))
