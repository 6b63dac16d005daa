"""How large a mean difference is beside its spread."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from ensemble_kd.statistics.interval import all_equal


def effect_size(differences: npt.ArrayLike) -> float | None:
    """Cohen's d_z, the mean difference over its standard deviation, with Hedges' correction.

    d_z of few differences is too large on average. It is multiplied by Hedges' factor
    J(m) = Gamma(m/2) / (sqrt(m/2) Gamma((m-1)/2)), m = n - 1 (Hedges, Journal of Educational
    Statistics, 1981, equation 6e), which makes it unbiased for normal differences.

    Args:
        differences: (n,).

    Returns:
        None where it is not defined: of fewer than 3 differences, or without spread.
    """
    given = np.asarray(differences, dtype=np.float64)
    freedom = len(given) - 1
    if freedom < 2 or all_equal(given):
        return None
    factor = math.exp(gammaln(freedom / 2) - gammaln((freedom - 1) / 2)) / math.sqrt(freedom / 2)
    return float(factor * given.mean() / given.std(ddof=1))
