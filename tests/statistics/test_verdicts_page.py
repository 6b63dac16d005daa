"""Verdicts on sweeps whose truth is known, and the page that says how often they are wrong."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from ensemble_kd.statistics import Scale, compare_each, judge

CELLS = [(1, 6, 4000), (5, 8, 1500), (10, 9, 500)]
"""Settings, seeds, made-up sweeps."""


@pytest.fixture
def verdicts(script: Callable[[str], ModuleType]) -> Any:
    return script("benchmarks/verdicts.py")


def more_often_than(level: float, found: npt.NDArray[np.bool_]) -> bool:
    """Whether a share is above a level by more than chance: once in 1,000 tests that are right."""
    test = stats.binomtest(int(found.sum()), len(found), level, alternative="greater")
    return bool(test.pvalue < 0.001)


@pytest.mark.parametrize(("settings", "seeds", "sweeps"), CELLS)
@pytest.mark.parametrize("name", ["normal", "heavy tails", "shared control"])
def test_null_teachers_are_seldom_said_to_help(
    name: str, settings: int, seeds: int, sweeps: int, verdicts: Any
) -> None:
    null = next(each for title, each in verdicts.NULLS.items() if name in title)
    gains = null(np.random.default_rng(seeds), sweeps, settings, seeds)
    found = verdicts.verdicts(gains)
    assert not more_often_than(0.05, (found > 0).any(-1))
    assert not more_often_than(0.05, (found != 0).any(-1))
    assert (found != 0).any(-1).mean() > 0.015  # a rule that never calls anything would pass too
    if settings > 1:
        assert more_often_than(0.05, (verdicts.verdicts(gains, correct=np.asarray) > 0).any(-1))


@pytest.mark.parametrize(("settings", "seeds", "sweeps"), CELLS)
def test_a_gain_worth_having_is_seldom_dismissed(
    settings: int, seeds: int, sweeps: int, verdicts: Any
) -> None:
    gains = np.random.default_rng(seeds).normal(1.0, size=(sweeps, settings, seeds))
    assert not more_often_than(0.05, (verdicts.verdicts(gains, margin=1.0) < 0).any(-1))
    assert (verdicts.verdicts(gains - 1.0, margin=1.0) < 0).mean() > 0.2
    if settings > 1:
        uncorrected = verdicts.verdicts(gains, margin=1.0, correct=np.asarray)
        assert more_often_than(0.05, (uncorrected < 0).any(-1))


def test_the_simulated_rule_is_that_of_sweeps(verdicts: Any) -> None:
    gains = np.random.default_rng(0).normal(0.6, size=(40, 3, 8))
    gains[:, 2] -= 1.5
    found = verdicts.verdicts(gains, margin=1.0)
    words = {1.0: "HELPS", -1.0: "DOES NOT HELP", 0.0: "INCONCLUSIVE"}
    for row, codes in zip(gains, found, strict=True):
        compared = compare_each({str(k): own for k, own in enumerate(row)}, 1.0)
        judged = judge(compared, "control", Scale("points"))
        assert [each.verdict for each in judged.values()] == [words[code] for code in codes]
    assert set(found.flat) == set(words)


def test_the_page_is_what_the_code_says(verdicts: Any) -> None:
    lines = verdicts.PAGE.read_text().splitlines()
    rows = [verdicts.false_row("normal", 6), verdicts.power_row(1.0, 6)]
    rows += [verdicts.dismissed_row(0.0, 6), verdicts.dismissed_row(1.0, 6)]
    rows += [verdicts.seeds_row(gain) for gain in verdicts.GAINS]
    for row in rows:
        assert row in lines, "docs/verdicts.md is not current: run python benchmarks/verdicts.py"
