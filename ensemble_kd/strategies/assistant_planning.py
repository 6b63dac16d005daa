"""Which assistants, if any: proposed from short proxy runs."""

from __future__ import annotations

import dataclasses
import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ensemble_kd.build import Node
from ensemble_kd.errors import UserError
from ensemble_kd.opening import expect_labels
from ensemble_kd.settling import Changes, LayOut, Settled, TryOut
from ensemble_kd.stage import derived_seed
from ensemble_kd.strategies.assistant_candidates import (
    Ends,
    LeftOut,
    candidates_between,
    ends_of,
    inside,
    sized,
)
from ensemble_kd.strategies.proxies import (
    Budget,
    Path,
    affordable,
    best,
    gains,
    noise,
    said,
)

if TYPE_CHECKING:
    from ensemble_kd.plan import Plan

FILE = "assistants.json"

DIRECT: Changes = {"strategy.assistants": [], "strategy.chain": None}
"""The student is taught by the teachers themselves."""

RULE = (
    "A path is proposed if the mean of its paired gains exceeds 0, and twice its standard error, "
    "which is estimated from the gains of all paths of the round together. Proxies are short and "
    "few: this is no significance test."
)


class AssistantPlanning:
    """Proposes assistants for a chain, or none, from short runs on the validation split.

    In a first round, the student is taught for a few epochs by the teachers themselves, and through
    each candidate as the only assistant; each of that with several seeds, the same ones for all. A
    candidate is proposed if its students are better than those of the direct path by more than
    twice the noise (see ``proxies.best``), and of several the one that gains most. Only then, and
    as far as the budget goes, a second round tries each of the others as a further assistant
    beside it, judged in the same way against it alone.

    Proxies have the data, the objective and the optimiser of the run, and its teachers, who are
    trained once, as stages of the run. They go through the store: a run that was stopped goes on,
    and another one with the same question pays nothing. That an assistant in a proxy is trained as
    briefly as its student speaks for the direct path.

    Args:
        assistants: ``auto``, or a list, which leaves nothing to plan.
        candidates: what the user calls the networks that may be assistants; none for reference
            networks between the student and the teachers, see ``candidates_between``.
        networks: these, as nodes.
        budget: what all proxies together may cost, in trainings of the student: epochs times
            multiply-adds.
        proxy_epochs: of each network in a proxy; None for as many as the budget allows.
        proxy_seeds: proxies of each path, >= 2.

    Raises:
        UserError: an argument is out of range.
    """

    def __init__(
        self,
        assistants: Any,
        candidates: Sequence[Any] = (),
        networks: Sequence[Node] = (),
        budget: float = 5.0,
        proxy_epochs: int | None = None,
        proxy_seeds: int = 2,
    ) -> None:
        if assistants != "auto" and not isinstance(assistants, list | tuple):
            raise UserError(
                f"strategy.assistants: expected auto or a list of networks, got {assistants!r}"
            )
        if not 0 < budget < math.inf:
            raise UserError(f"strategy.budget: expected a finite number > 0, got {budget}")
        if proxy_epochs is not None and proxy_epochs < 1:
            raise UserError(f"strategy.proxy_epochs: expected 1 or more, got {proxy_epochs}")
        if proxy_seeds < 2:
            raise UserError(
                f"strategy.proxy_seeds: expected 2 or more, which show a spread, got {proxy_seeds}"
            )
        names = [
            each if isinstance(each, str) else f"candidates[{number}]"
            for number, each in enumerate(candidates)
        ]
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"strategy.candidates: expected each once, got {name} twice")
        self.open = assistants == "auto"
        self.candidates = dict(zip(names, networks, strict=True))
        self.budget = budget
        self.proxy_epochs = proxy_epochs
        self.proxy_seeds = proxy_seeds

    def meanwhile(self) -> Changes | None:
        """The direct path; nothing where the user named the assistants."""
        return DIRECT if self.open else None

    def check(self, plan: Plan, lay_out: LayOut) -> None:
        """See that there are candidates that can be trained, a budget, and labels to judge by.

        Raises:
            UserError: one of these is not so.
        """
        expect_labels(plan.data, "strategy.assistants=auto")
        for candidate in _Inquiry(self, plan).candidates:
            lay_out(_chain((candidate,)))

    def settle(self, plan: Plan, try_out: TryOut) -> Settled:
        """Run the proxies and decide."""
        inquiry = _Inquiry(self, plan)
        alone = [(each,) for each in inquiry.candidates]
        direct = inquiry.tried([(), *alone], try_out)[()]
        answer = inquiry.judged(alone, direct)
        if answer:
            chains = inquiry.within_budget(
                tuple(sorted((*answer, each), key=lambda c: -c.parameters))
                for each in inquiry.candidates
                if each not in answer
            )
            against = inquiry.tried(chains, try_out)[answer]
            answer = inquiry.judged(chains, against) or answer
        return inquiry.settled(answer)


class _Round(NamedTuple):
    """Paths that were judged together: the noise, and the gains of each by seed."""

    noise: float
    gains: Mapping[Path, list[float]]

    def record(self) -> dict[str, Any]:
        """As it is written down."""
        paths = [
            {
                "assistants": [each.name for each in path],
                "gains": found,
                "mean": statistics.fmean(found),
            }
            for path, found in self.gains.items()
        ]
        return {"noise": self.noise, "paths": paths}


class _Inquiry:
    """What is asked about one run, and what has been found out."""

    def __init__(self, planning: AssistantPlanning, plan: Plan) -> None:
        student = next(stage for stage in plan.stages if stage.name == "student")
        asked = planning.proxy_epochs
        if asked is not None and asked > student.epochs:
            raise UserError(
                f"strategy.proxy_epochs: expected at most the {student.epochs} of epochs, "
                f"got {asked}"
            )
        self.ends: Ends = ends_of(plan)
        named = planning.candidates or dict(candidates_between(self.ends, plan))
        counted = [
            sized(name, node, f"strategy.candidates: {name}", plan) for name, node in named.items()
        ]
        fitting, self.left_out = inside(counted, self.ends)
        self.budget = Budget(
            planning.budget, student.epochs, self.ends.multiply_adds, planning.proxy_seeds
        )
        self.candidates, self.epochs, dear = affordable(fitting, self.budget, asked)
        self.left_out += dear
        self.seeds = [
            derived_seed(student.seed, f"proxy/{number}") for number in range(planning.proxy_seeds)
        ]
        self.counted = counted
        self.cost = 0.0
        self.accuracies: dict[Path, list[float]] = {}
        self.rounds: list[_Round] = []

    def tried(self, paths: Iterable[Path], try_out: TryOut) -> dict[Path, list[float]]:
        """The accuracies of all paths so far, by seed, after these have been tried as well."""
        asked = list(paths)
        self.cost += self.budget.cost(asked, self.epochs, self.accuracies)
        trials = {
            _trial(path, number): {**_chain(path), "epochs": self.epochs, "seed": seed}
            for path in asked
            for number, seed in enumerate(self.seeds)
        }
        found = try_out(trials) if trials else {}
        for path in asked:
            self.accuracies[path] = [
                found[_trial(path, number)] for number in range(len(self.seeds))
            ]
        return self.accuracies

    def judged(self, paths: Sequence[Path], against: Sequence[float]) -> Path:
        """The best of some paths, if it is better than another one; else ()."""
        if not paths:
            return ()
        tried = {path: gains(self.accuracies[path], against) for path in paths}
        self.rounds.append(_Round(noise(tried.values()), tried))
        return best(tried) or ()

    def within_budget(self, chains: Iterable[Path]) -> list[Path]:
        """Longer chains that what is left pays for, the cheapest first."""
        kept: list[Path] = []

        def costs(paths: Sequence[Path]) -> float:
            return self.budget.cost(paths, self.epochs, self.accuracies)

        for chain in sorted(chains, key=lambda each: costs([each])):
            if self.cost + costs([*kept, chain]) <= self.budget.share:
                kept.append(chain)
            else:
                self.left_out.append(LeftOut(_named(chain), "the rest of the budget is too small"))
        return kept

    def settled(self, answer: Path) -> Settled:
        """The answer, the record and the lines for the terminal."""
        reasons = dict.fromkeys(each.reason for each in self.left_out)
        names = {
            why: [each.name for each in self.left_out if each.reason == why] for why in reasons
        }
        lines = [f"assistants: not tried: {'; '.join(names[why])}: {why}" for why in reasons]
        reason = self._reason(answer)
        sizes = ", ".join(f"{each.name} ({each.parameters:,} parameters)" for each in answer)
        lines.append(f"assistants: {sizes or 'none'}: {reason}")
        record = {
            "answer": [each.name for each in answer],
            "reason": reason,
            "rule": RULE,
            "budget": self.budget.share,
            "cost": self.cost,
            "proxy_epochs": self.epochs,
            "proxy_seeds": self.seeds,
            "epochs": self.budget.epochs,
            "student": {
                "parameters": self.ends.student,
                "multiply_adds": self.ends.multiply_adds,
            },
            "teachers": {name: {"parameters": size} for name, size in self.ends.teachers.items()},
            "candidates": [dataclasses.asdict(each) for each in self.counted],
            "left_out": [each._asdict() for each in self.left_out],
            "paths": [
                {"assistants": [each.name for each in path], "accuracy": found}
                for path, found in self.accuracies.items()
            ],
            "rounds": [each.record() for each in self.rounds],
        }
        return Settled(_chain(answer), FILE, record, lines)

    def _reason(self, answer: Path) -> str:
        """What was measured, in words; gains are over the direct path."""
        tried = {
            path: gains(found, self.accuracies[()])
            for path, found in self.accuracies.items()
            if path
        }
        shown = answer or max(tried, key=lambda path: statistics.fmean(tried[path]))
        measured = (
            f"{100 * statistics.fmean(tried[shown]):+.1f} points on validation over the direct "
            f"path in {len(self.seeds)} proxies of {said(self.epochs)} "
            f"(noise {100 * self.rounds[0].noise:.1f}, cost {self.cost:.2f} of the student's "
            "own training)"
        )
        if answer:
            return measured
        return (
            "no candidate beat the direct path by more than twice the noise: the best, "
            f"{_named(shown)}, had {measured}"
        )


def _chain(path: Path) -> Changes:
    """A run in which the student is taught along a path."""
    return {"strategy.assistants": [dict(each.node) for each in path]} if path else DIRECT


def _named(path: Path) -> str:
    return " and ".join(each.name for each in path) or "direct"


def _trial(path: Path, number: int) -> str:
    """What the proxies of a path are called, in the names of stages."""
    name = re.sub(r"[^\w.]+", "_", _named(path)).strip("_")
    return f"{name}/{number}"
