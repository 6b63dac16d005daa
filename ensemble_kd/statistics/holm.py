"""Many tests at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def holm(p_values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Holm's step-down correction: the chance of any false finding stays at the level of one test.

    The i-th smallest of k p-values is multiplied by k - i + 1 and is at least as large as what the
    smaller ones became (Holm, Scandinavian Journal of Statistics, 1979). It holds however the tests
    depend on each other, so that settings may share their control.

    Args:
        p_values: (*, k), those of a family along the last axis.

    Returns:
        (*, k) float64 in [0, 1], in the order given.
    """
    given = np.asarray(p_values, dtype=np.float64)
    order = given.argsort(-1)
    factors = np.arange(given.shape[-1], 0, -1)
    stepped = np.maximum.accumulate(np.take_along_axis(given, order, -1) * factors, -1)
    corrected = np.empty_like(given)
    np.put_along_axis(corrected, order, np.minimum(stepped, 1.0), -1)
    return corrected
