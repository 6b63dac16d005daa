"""The sign-flip test against every pattern of signs, counted one by one in whole numbers."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest

from ensemble_kd.statistics import is_exact, sign_flip
from ensemble_kd.statistics.sign_flip import PATTERNS, Alternative, sign_flip_each

ALTERNATIVES: tuple[Alternative, ...] = ("two-sided", "less", "greater")


def reference_p(differences: list[Fraction], alternative: Alternative) -> float:
    """Share of the patterns whose sum is at least as extreme as the one that was seen."""
    seen = sum(differences, Fraction())
    extreme = 0
    for signs in itertools.product((1, -1), repeat=len(differences)):
        flipped = sum((s * d for s, d in zip(signs, differences, strict=True)), Fraction())
        if alternative == "two-sided":
            extreme += abs(flipped) >= abs(seen)
        else:
            extreme += flipped <= seen if alternative == "less" else flipped >= seen
    return float(Fraction(extreme, 2 ** len(differences)))


@pytest.mark.parametrize("alternative", ALTERNATIVES)
@pytest.mark.parametrize("n", [1, 2, 3, 6, 9])
def test_counts_every_pattern_of_signs(n: int, alternative: Alternative) -> None:
    draw = np.random.default_rng(n)
    for _ in range(8):
        # Accuracies on 360 samples differ by few different amounts: there are ties, and zeros.
        counts = [Fraction(int(count), 360) for count in draw.integers(-4, 6, size=n)]
        found = sign_flip([float(count) for count in counts], alternative)
        assert float(found) == reference_p(counts, alternative)


def test_ties_are_ties_however_the_sums_were_rounded() -> None:
    """Accuracies of six seeds, to four digits: their differences in binary are not quite so."""
    students = [8806, 8722, 9083, 8333, 8806, 9361]
    controls = [9278, 8583, 8528, 8611, 9306, 8750]
    pairs = list(zip(students, controls, strict=True))
    rounded = [student / 10_000 - control / 10_000 for student, control in pairs]
    exact = [Fraction(student - control) for student, control in pairs]
    assert float(sign_flip(rounded)) == reference_p(exact, "two-sided") == 1.0
    assert float(sign_flip([0.1, 0.2, -0.3])) == 1.0


def test_the_smallest_p_value_is_that_of_one_sign() -> None:
    for n in range(1, 11):
        assert float(sign_flip(np.arange(1, n + 1))) == 2 / 2**n
        assert float(sign_flip(np.arange(1, n + 1), "greater")) == 1 / 2**n
        assert float(sign_flip(-np.arange(1, n + 1), "less")) == 1 / 2**n


def test_no_differences_at_all_are_no_finding() -> None:
    assert float(sign_flip(np.zeros(6))) == 1.0


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
def test_the_unit_does_not_matter(unit: float) -> None:
    differences = np.array([0.3, -0.1, 0.2, 0.25, -0.05, 0.4, 0.1])
    assert float(sign_flip(unit * differences)) == float(sign_flip(differences))


def test_rows_are_tested_as_each_alone() -> None:
    draw = np.random.default_rng(0)
    rows = [draw.normal(0.5, size=n) for n in (6, 3, 6, 1, 7, 3)]
    for alternative in ALTERNATIVES:
        alone = [float(sign_flip(row, alternative)) for row in rows]
        assert sign_flip_each(rows, alternative) == alone
    block = draw.normal(size=(2, 3, 5))
    assert sign_flip(block)[1, 2] == float(sign_flip(block[1, 2]))


def test_many_differences_are_sampled_the_same_each_time() -> None:
    assert is_exact(15)
    assert float(sign_flip(np.ones(15), "greater")) == 1 / 2**15
    assert not is_exact(16)
    differences = np.random.default_rng(0).normal(0.35, size=16)
    signs = np.array(list(itertools.product((1, -1), repeat=16)))
    exact = float((np.abs(signs @ differences) >= abs(differences.sum()) - 1e-12).mean())
    found = float(sign_flip(differences))
    assert found == float(sign_flip(differences))
    error = (exact * (1 - exact) / PATTERNS) ** 0.5
    assert found != exact
    assert abs(found - exact) < 5 * 2 * error
    assert float(sign_flip(np.ones(16), "greater")) >= 1 / (PATTERNS + 1)  # never 0
