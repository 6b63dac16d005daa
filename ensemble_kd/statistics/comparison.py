"""One setting against one control."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from ensemble_kd.statistics.effect import effect_size
from ensemble_kd.statistics.interval import all_equal, bootstrap_interval
from ensemble_kd.statistics.sign_flip import is_exact, sign_flip_each

Key = TypeVar("Key", bound=Hashable)


class Comparison(NamedTuple):
    """What paired differences say, before any correction; positive is better.

    Attributes:
        n: paired seeds.
        mean: gain in the unit of the metric, as are the next four.
        std: sample standard deviation (n - 1); None of one seed.
        low: lower end of the 95% interval, ``bootstrap_interval``; None of one seed.
        high: its upper end.
        margin: the smallest gain worth having.
        p: of the two-sided sign-flip test that there is no gain.
        p_below: of the one-sided sign-flip test that the gain is the margin or more; a small one
            says that it is less.
        exact: whether the tests counted all patterns of signs.
        effect_size: d_z with Hedges' correction, ``effect_size``; None where it is not defined.
    """

    n: int
    mean: float
    std: float | None
    low: float | None
    high: float | None
    margin: float
    p: float
    p_below: float
    exact: bool
    effect_size: float | None


def compare(gains: npt.ArrayLike, margin: float) -> Comparison:
    """Compare a setting with its control.

    Args:
        gains: (n,), one for each seed, n >= 1.
        margin: the smallest gain worth having, above 0, in the unit of the gains.

    Raises:
        ValueError: there is no gain, one is not finite, or the margin is not above 0.
    """
    return compare_each({"": gains}, margin)[""]


def compare_each(gains: Mapping[Key, npt.ArrayLike], margin: float) -> dict[Key, Comparison]:
    """The same for several settings, by name, which takes less time than one by one."""
    if not 0 < margin < np.inf:
        raise ValueError(f"margin: expected a number above 0, got {margin}")
    rows = [np.asarray(given, dtype=np.float64) for given in gains.values()]
    for row in rows:
        if row.ndim != 1 or not row.size or not np.isfinite(row).all():
            raise ValueError(f"gains: expected one finite number or more, got {row.tolist()}")
    either = sign_flip_each(rows)
    below = sign_flip_each([row - margin for row in rows], "less")
    return {
        name: _comparison(row, float(margin), p, p_below)
        for name, row, p, p_below in zip(gains, rows, either, below, strict=True)
    }


def _comparison(
    row: npt.NDArray[np.float64], margin: float, p: float, p_below: float
) -> Comparison:
    interval = bootstrap_interval(row)
    std = None
    if row.size > 1:
        std = 0.0 if all_equal(row) else float(row.std(ddof=1))
    return Comparison(
        n=row.size,
        mean=float(row.mean()),
        std=std,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        margin=margin,
        p=p,
        p_below=p_below,
        exact=is_exact(row.size),
        effect_size=effect_size(row),
    )
