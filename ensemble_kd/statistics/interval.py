"""Confidence intervals of a mean difference."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

RESAMPLES = 9999


class Interval(NamedTuple):
    """Where a mean may lie."""

    low: float
    high: float


def all_equal(differences: npt.NDArray[np.float64]) -> bool:
    """Whether differences are the same but for rounding, so that they have no spread."""
    return bool(np.ptp(differences) <= 1e-12 * np.abs(differences).max())


def bootstrap_interval(differences: npt.ArrayLike, level: float = 0.95) -> Interval | None:
    """The bias-corrected and accelerated bootstrap interval of the mean; the same each time.

    Efron, Better Bootstrap Confidence Intervals, JASA 1987. With few differences it is too narrow,
    as every bootstrap interval is: ``docs/verdicts.md`` has its coverage.

    Args:
        differences: (n,).
        level: of confidence.

    Returns:
        None for a single difference; of differences that are all the same, that one twice.
    """
    given = np.asarray(differences, dtype=np.float64)
    if len(given) < 2:
        return None
    if all_equal(given):
        return Interval(float(given[0]), float(given[0]))
    found = stats.bootstrap(
        (given,),
        np.mean,
        confidence_level=level,
        n_resamples=RESAMPLES,
        method="BCa",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Interval(float(found.low), float(found.high))


def t_interval(differences: npt.ArrayLike, level: float = 0.95) -> Interval | None:
    """Student's t interval of the mean: exact where differences are normal.

    Args:
        differences: (n,).
        level: of confidence.

    Returns:
        None for a single difference; of differences that are all the same, that one twice.
    """
    given = np.asarray(differences, dtype=np.float64)
    if len(given) < 2:
        return None
    if all_equal(given):
        return Interval(float(given[0]), float(given[0]))
    low, high = stats.t.interval(level, len(given) - 1, loc=given.mean(), scale=stats.sem(given))
    return Interval(float(low), float(high))
