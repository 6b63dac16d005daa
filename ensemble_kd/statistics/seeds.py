"""How many seeds it takes."""

from __future__ import annotations

import math

from scipy import stats

from ensemble_kd.statistics.verdict import ALPHA, ENOUGH

POWER = 0.8
MOST = 100


def smallest_p(seeds: int, settings: int) -> float:
    """The smallest two-sided p-value that any setting of a family can reach after correction."""
    return min(1.0, settings * 2.0 ** (1 - seeds))


def seeds_to_call(settings: int) -> int:
    """Fewest seeds with which one of so many settings can be called at all."""
    return max(ENOUGH, math.ceil(math.log2(2 * settings / ALPHA)))


def seeds_to_show(gain: float, std: float, settings: int) -> int | None:
    """About how many seeds show a gain four times out of five.

    It is the approximation of the paired t-test: the gain must be as many standard errors as its
    critical value and the quantile of the power together. The level is the largest that the
    sign-flip test of so many seeds can have at the first step of Holm's correction, a whole number
    of patterns of signs. ``docs/verdicts.md`` has the power that was found.

    Args:
        gain: true gain, above 0.
        std: standard deviation of gains over seeds.
        settings: of the family.

    Returns:
        None if it is more than ``MOST``.
    """
    for seeds in range(seeds_to_call(settings), MOST + 1):
        patterns = 2.0 ** (seeds - 1)
        level = math.floor(ALPHA / settings * patterns) / patterns
        critical = stats.t.ppf(1 - level / 2, seeds - 1)
        if gain * math.sqrt(seeds) >= (critical + stats.norm.ppf(POWER)) * std:
            return seeds
    return None
