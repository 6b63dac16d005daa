"""The sign-flip permutation test of paired differences (Fisher, Design of Experiments, 1935)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

Alternative = Literal["two-sided", "less", "greater"]

MOST_EXACT = 15
"""So many differences have 32,768 patterns of signs, which take a third of a second."""

PATTERNS = 2**MOST_EXACT
AT_ONCE = 2**21
"""Numbers that are permuted together: 16 MiB."""


def sign_flip(
    differences: npt.ArrayLike, alternative: Alternative = "two-sided"
) -> npt.NDArray[np.float64]:
    """p-values of the hypothesis that each difference might as well have had the other sign.

    It holds where differences are independent and symmetric about 0, as those of two students are
    that could be exchanged for one another; nothing else is assumed of their distribution. The
    statistic is the mean. Up to ``MOST_EXACT`` differences all patterns of signs are counted, and
    the smallest p-value of n differences is 2 / 2^n on both sides, 1 / 2^n on one. Of more,
    ``PATTERNS`` are drawn, the same each time, and p = (1 + as extreme) / (1 + drawn), which is
    valid too (Phipson and Smyth, Statistical Applications in Genetics and Molecular Biology, 2010).

    Args:
        differences: (*, n), n >= 1.
        alternative: ``less``: the mean is below 0; ``greater``: above; ``two-sided``: either.

    Returns:
        (*,) float64.
    """
    given = np.asarray(differences, dtype=np.float64)
    if given.shape[-1] == 1:  # scipy wants two; one that is 0 changes no mean's place among them
        given = np.concatenate([given, np.zeros_like(given)], -1)
    largest = np.abs(given).max(-1, keepdims=True)
    scaled = given / np.where(largest > 0, largest, 1.0)
    tested = stats.permutation_test(
        (scaled,),
        _mean,
        permutation_type="samples",
        alternative=alternative,
        vectorized=True,
        axis=-1,
        n_resamples=PATTERNS,
        batch=max(1, AT_ONCE // scaled.size),
        rng=np.random.default_rng(0),
    )
    return np.asarray(tested.pvalue, dtype=np.float64)


def sign_flip_each(
    rows: Sequence[npt.NDArray[np.float64]], alternative: Alternative = "two-sided"
) -> list[float]:
    """As ``sign_flip`` of each row, (n,), which may differ in length; those of a length at once."""
    found = [math.nan] * len(rows)
    for length in {len(row) for row in rows}:
        places = [place for place, row in enumerate(rows) if len(row) == length]
        together = sign_flip(np.stack([rows[place] for place in places]), alternative)
        for place, p in zip(places, together.tolist(), strict=True):
            found[place] = p
    return found


def is_exact(n: int) -> bool:
    """Whether all patterns of signs of so many differences are counted."""
    return n <= MOST_EXACT


def _mean(scaled: npt.NDArray[np.float64], axis: int) -> npt.NDArray[np.float64]:
    """Means that are equal on paper are equal here, so that ties are counted as such."""
    means: npt.NDArray[np.float64] = np.round(scaled.mean(axis=axis), 12)
    return means
