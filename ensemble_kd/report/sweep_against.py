"""The settings of a sweep against their controls, and against each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

from ensemble_kd.errors import UserError, nearest
from ensemble_kd.report.contract import Results
from ensemble_kd.report.roles import ALONE, in_order, role
from ensemble_kd.report.sweep_contract import AgainstEntry, BetweenEntry
from ensemble_kd.report.sweep_metrics import Metric, value

if TYPE_CHECKING:
    from ensemble_kd.statistics import Judged

STUDENT = "student"
MOST_SETTINGS = 20
"""Of which every two are compared: 190 pairs."""

Groups = Mapping[str, Sequence[Results]]
"""Results by the label of their setting, one for each seed."""


def find_reference(groups: Groups, asked: str | None) -> str | None:
    """Against what the verdicts shown first are.

    Args:
        groups: all of the sweep.
        asked: a predictor's name; without one, the student without teachers or, where no run has
            it, the first other control.

    Returns:
        None where there is no control.

    Raises:
        UserError: no run has the predictor that was asked for, or it is the student itself.
    """
    known = {name for runs in groups.values() for run in runs for name in run["predictors"]}
    known.discard(STUDENT)
    if asked is None:
        return next(iter(references(known)), None)
    if asked not in known:
        raise UserError(f"against: no job has the predictor {asked!r}{nearest(asked, known)}")
    return asked


def references(names: Iterable[str], first: str | None = ALONE) -> list[str]:
    """The controls among names, and ``first``, if it is among them, before them."""
    found = [name for name in in_order(names) if role(name) == "control" or name == first]
    return sorted(found, key=lambda name: name != first)


def compare_settings(
    groups: Groups, reference: str | None, metric: Metric, margin: float
) -> dict[str, dict[str, AgainstEntry]]:
    """Each setting against each control that all its runs have: label -> control -> entry.

    Args:
        groups: all of the sweep: the settings that have a control are a family.
        reference: the one that comes first; it need not be a control.
        metric: of the test split.
        margin: the smallest gain worth having, as ``results.json`` writes values.
    """
    from ensemble_kd.statistics import Scale, compare_each, judge

    scale = Scale(metric.unit, metric.factor, metric.digits)
    shared = {label: _shared(runs) for label, runs in groups.items()}
    found: dict[str, dict[str, AgainstEntry]] = {label: {} for label in groups}
    for control in references(set().union(*shared.values()), reference):
        gains = {
            label: _known(gain(run, control, "test", metric) for run in runs)
            for label, runs in groups.items()
            if control in shared[label]
        }
        compared = compare_each({label: own for label, own in gains.items() if own}, margin)
        for label, judged in judge(compared, control, scale).items():
            found[label][control] = _against(judged)
    return found


def gain(run: Results, control: str, split: str, metric: Metric) -> float | None:
    """By how much the student of a run is better than another predictor of the same run."""
    student, other = (value(run, name, split, metric.name) for name in (STUDENT, control))
    return metric.gain(student, other)


def compare_pairs(groups: Groups, metric: Metric, margin: float) -> list[BetweenEntry] | None:
    """Every two settings by the seeds that both have; all pairs are a family.

    Args:
        groups: all of the sweep.
        metric: of the test split.
        margin: as for ``compare_settings``; no verdict here depends on it.

    Returns:
        None with more than ``MOST_SETTINGS`` settings.
    """
    from ensemble_kd.statistics import called, compare_each, holm

    if len(groups) > MOST_SETTINGS:
        return None
    students = {
        label: {run["seed"]: value(run, STUDENT, "test", metric.name) for run in runs}
        for label, runs in groups.items()
    }
    gains = {
        (one, other): _known(
            metric.gain(students[one][seed], students[other][seed])
            for seed in students[one]
            if seed in students[other]
        )
        for one, other in combinations(students, 2)
    }
    compared = compare_each({pair: own for pair, own in gains.items() if own}, margin)
    if not compared:
        return []
    entries = []
    corrected = holm([found.p for found in compared.values()]).tolist()
    for ((one, other), found), p in zip(compared.items(), corrected, strict=True):
        better = {"HELPS": one, "DOES NOT HELP": other, "INCONCLUSIVE": None}
        entries.append(
            BetweenEntry(
                one=one,
                other=other,
                n=found.n,
                mean=found.mean,
                std=found.std,
                low=found.low,
                high=found.high,
                effect_size=found.effect_size,
                p=found.p,
                exact=found.exact,
                p_holm=p,
                better=better[called(found.n, found.mean, p, p_below=1.0)],
            )
        )
    return entries


def _shared(runs: Sequence[Results]) -> set[str]:
    """The predictors that all of some runs have, besides the student."""
    return set.intersection(*(set(run["predictors"]) for run in runs)) - {STUDENT}


def _known(values: Iterable[float | None]) -> list[float]:
    return [each for each in values if each is not None]


def _against(judged: Judged) -> AgainstEntry:
    found = judged.found
    return AgainstEntry(
        n=found.n,
        mean=found.mean,
        std=found.std,
        low=found.low,
        high=found.high,
        effect_size=found.effect_size,
        p=found.p,
        p_below=found.p_below,
        exact=found.exact,
        family=judged.settings,
        p_holm=judged.p_holm,
        p_below_holm=judged.p_below_holm,
        verdict=judged.verdict,
        sentence=judged.sentence,
    )
