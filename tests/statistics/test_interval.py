"""Intervals: the bootstrap against all resamples there are, Student's t against its formula."""

from __future__ import annotations

import itertools
import math
import statistics

import numpy as np
import pytest
from scipy import stats

from ensemble_kd.statistics import bootstrap_interval, t_interval
from ensemble_kd.statistics.interval import RESAMPLES


def resampled(differences: list[float]) -> list[float]:
    """The means of all n^n resamples, which are equally likely, in order."""
    return sorted(map(statistics.fmean, itertools.product(differences, repeat=len(differences))))


def reference_ranks(differences: list[float], level: float) -> list[float]:
    """Efron (1987): which shares of the resampled means lie below both ends."""
    means, mean, n = resampled(differences), statistics.fmean(differences), len(differences)
    below = sum(m < mean - 1e-12 for m in means) + sum(m <= mean + 1e-12 for m in means)
    z0 = stats.norm.ppf(below / (2 * len(means)))
    without = [statistics.fmean(differences[:i] + differences[i + 1 :]) for i in range(n)]
    centre = statistics.fmean(without)
    cubes = sum((centre - each) ** 3 for each in without)
    squares = sum((centre - each) ** 2 for each in without)
    acceleration = cubes / (6 * squares**1.5)
    z = [z0 + stats.norm.ppf(tail) for tail in ((1 - level) / 2, (1 + level) / 2)]
    return [float(stats.norm.cdf(z0 + each / (1 - acceleration * each))) for each in z]


def quantile(means: list[float], rank: float) -> float:
    return means[min(max(int(rank * len(means)), 0), len(means) - 1)]


@pytest.mark.parametrize("level", [0.8, 0.95])
@pytest.mark.parametrize(
    "differences",
    [
        [0.3, -0.1, 0.2, 0.25, 0.7],
        [0.01, 0.02, 0.015, 0.09, 0.012],
        [-1.0, 0.4, 0.1, 0.2, 0.15, 0.3],
    ],
)
def test_bootstrap_is_bias_corrected_and_accelerated(
    differences: list[float], level: float
) -> None:
    found = bootstrap_interval(differences, level)
    assert found is not None
    means = resampled(differences)
    for end, rank in zip(found, reference_ranks(differences, level), strict=True):
        error = 5 * math.sqrt(rank * (1 - rank) / RESAMPLES)  # not all resamples are drawn
        assert quantile(means, rank - error) - 1e-9 <= end <= quantile(means, rank + error) + 1e-9
    assert found == bootstrap_interval(differences, level)


def test_the_correction_is_no_small_thing() -> None:
    """What the test above would not accept: the plain percentiles of the resampled means."""
    low, high = reference_ranks([0.01, 0.02, 0.015, 0.09, 0.012], 0.95)
    assert low > 0.025 + 0.02
    assert high > 0.975 + 0.015


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_t_interval_is_that_of_the_formula(level: float) -> None:
    differences = [0.3, -0.1, 0.2, 0.25, 0.7]
    error = statistics.stdev(differences) / math.sqrt(5)
    half = {0.8: 1.5332, 0.95: 2.7764}[level] * error  # from a printed table, 4 degrees of freedom
    mean = statistics.fmean(differences)
    assert t_interval(differences, level) == pytest.approx((mean - half, mean + half), abs=1e-4)


@pytest.mark.parametrize("make", [bootstrap_interval, t_interval])
def test_without_spread_there_is_nothing_to_resample(make: type) -> None:
    assert make([0.3]) is None
    assert make([0.0, 0.0, 0.0]) == (0.0, 0.0)
    assert make([0.3, 0.1 + 0.2, 0.3]) == pytest.approx((0.3, 0.3))


def test_two_differences_are_an_interval() -> None:
    assert bootstrap_interval(np.array([0.1, 0.2])) == pytest.approx((0.1, 0.2))
