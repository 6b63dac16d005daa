"""The effect size against its formula, and without bias."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest

from ensemble_kd.statistics import effect_size


def reference(differences: list[float]) -> float:
    m = len(differences) - 1
    factor = math.gamma(m / 2) / (math.sqrt(m / 2) * math.gamma((m - 1) / 2))
    return factor * statistics.fmean(differences) / statistics.stdev(differences)


@pytest.mark.parametrize("n", [3, 4, 6, 20])
def test_is_cohens_d_with_hedges_correction(n: int) -> None:
    differences = np.random.default_rng(n).normal(0.4, size=n).tolist()
    assert effect_size(differences) == pytest.approx(reference(differences), rel=1e-12)


def test_is_right_on_average_with_few_differences() -> None:
    rows = np.random.default_rng(0).normal(1.0, size=(4000, 6))
    found = [effect_size(row) for row in rows]
    sizes = np.array([each for each in found if each is not None])
    error = sizes.std() / math.sqrt(len(sizes))
    assert abs(sizes.mean() - 1.0) < 4 * error
    uncorrected = rows.mean(1) / rows.std(1, ddof=1)
    assert uncorrected.mean() - 1.0 > 4 * error


@pytest.mark.parametrize("differences", [[0.1], [0.1, 0.2], [0.3, 0.1 + 0.2, 0.3], [0.0] * 6])
def test_is_not_defined_for_two_or_without_spread(differences: list[float]) -> None:
    assert effect_size(differences) is None
