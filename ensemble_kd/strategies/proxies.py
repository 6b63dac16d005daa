"""Short runs that stand for whole ones: what they cost, and what their accuracies say."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ensemble_kd.errors import UserError
from ensemble_kd.strategies.assistant_candidates import Candidate, LeftOut

Path = tuple[Candidate, ...]
"""Assistants from the teachers to the student, in the order of training; () is the direct path."""

SHORTEST = 1 / 50
"""Of the epochs of the run: fewer say nothing of it."""

BEYOND = 2
"""Standard errors by which a mean gain must exceed 0."""


@dataclass(frozen=True)
class Budget:
    """What proxies may cost.

    The unit is the training of the student itself: its epochs times its multiply-adds for a sample.
    What teachers say is not counted, nor is their training, which is that of the run.

    Attributes:
        share: how much of that all proxies together may cost.
        epochs: of the run.
        multiply_adds: of the student, for one sample.
        seeds: proxies of each path.
    """

    share: float
    epochs: int
    multiply_adds: int
    seeds: int

    def cost(self, paths: Iterable[Path], epochs: int, done: Iterable[Path] = ()) -> float:
        """What proxies of some paths cost, as a share of the student's own training.

        Args:
            paths: what is to be trained.
            epochs: of each network.
            done: paths that were trained before: assistants at whom they have come by already do
                not count again.
        """
        before = self._stages(done)
        new = sum(size for stage, size in self._stages(paths).items() if stage not in before)
        return self.seeds * epochs * new / (self.epochs * self.multiply_adds)

    def longest(self, paths: Sequence[Path]) -> int:
        """The most epochs with which the proxies of some paths are within the budget; maybe 0."""
        epochs = min(self.epochs, int(self.share / self.cost(paths, 1)))
        return epochs if self.cost(paths, epochs) <= self.share else epochs - 1

    def _stages(self, paths: Iterable[Path]) -> dict[tuple[str, ...], int]:
        """Each network to be trained, by how it comes about, and its multiply-adds."""
        found: dict[tuple[str, ...], int] = {}
        for path in paths:
            names = tuple(each.name for each in path)
            for number, each in enumerate(path):
                found[names[: number + 1]] = each.multiply_adds
            found[(*names, "", "student")] = self.multiply_adds
        return found


def affordable(
    candidates: Sequence[Candidate], budget: Budget, epochs: int | None
) -> tuple[list[Candidate], int, list[LeftOut]]:
    """The candidates that can be tried within a budget, each alone, and for how many epochs.

    The dearest are left out, as many as must be.

    Args:
        candidates: at least one.
        budget: what they may cost.
        epochs: of each proxy; None for as many as the budget allows, a fiftieth of the run's or
            more.

    Raises:
        UserError: the budget does not even allow the cheapest.
    """
    least = epochs or math.ceil(budget.epochs * SHORTEST)
    cheapest = sorted(candidates, key=lambda each: each.multiply_adds)
    for count in range(len(cheapest), 0, -1):
        kept = [each for each in candidates if each in cheapest[:count]]
        paths = [(), *((each,) for each in kept)]
        if budget.cost(paths, least) <= budget.share:
            return kept, epochs or budget.longest(paths), _too_dear(kept, candidates, budget, least)
    needed = budget.cost([(), (cheapest[0],)], least)
    raise UserError(
        f"strategy.budget: expected at least {_upwards(needed)} for {budget.seeds} proxies of "
        f"{said(least)} of the direct path and of {cheapest[0].name}, got {budget.share:g}"
    )


def gains(accuracies: Sequence[float], against: Sequence[float]) -> list[float]:
    """What one path is better than another, seed by seed."""
    return [own - other for own, other in zip(accuracies, against, strict=True)]


def noise(tried: Iterable[Sequence[float]]) -> float:
    """The standard error of a mean of paired gains, from those of all paths that were tried.

    Two proxies tell little of a spread, so the variances of all paths are averaged.

    Args:
        tried: of each path the gains, n >= 2 of them.
    """
    lists = list(tried)
    return math.sqrt(statistics.fmean(map(statistics.variance, lists)) / len(lists[0]))


def best(tried: Mapping[Path, Sequence[float]]) -> Path | None:
    """The path with the greatest mean gain, if that is more than twice the noise; else None.

    This is no significance test. Where no path is better than what it is held against, two proxies
    of each of three paths let one pass in about one of six cases, and of a single path in one of
    seven.

    Args:
        tried: paths and their gains, n >= 2; of equal ones the first is taken.
    """
    top = max(tried, key=lambda path: statistics.fmean(tried[path]))
    mean = statistics.fmean(tried[top])
    return top if mean > 0 and mean > BEYOND * noise(tried.values()) else None


def said(epochs: int) -> str:
    """So many epochs, in words."""
    return f"{epochs} epoch{'s' if epochs != 1 else ''}"


def _too_dear(
    kept: Sequence[Candidate], all_: Sequence[Candidate], budget: Budget, epochs: int
) -> list[LeftOut]:
    needed = budget.cost([(), *((each,) for each in all_)], epochs)
    reason = (
        f"strategy.budget={budget.share:g} does not pay for it: all {len(all_)} candidates, in "
        f"proxies of {said(epochs)}, take {_upwards(needed)}"
    )
    return [LeftOut(each.name, reason) for each in all_ if each not in kept]


def _upwards(cost: float) -> str:
    """With two digits, and not less than it is."""
    return f"{math.ceil(cost * 100 - 1e-9) / 100:g}"
