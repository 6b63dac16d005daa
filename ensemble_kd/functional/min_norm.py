"""The shortest convex combination of a few vectors, with a bound on each weight."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

RIDGE = 1e-9
"""Added to the diagonal, in units of the mean squared length: among equally short combinations it
prefers the one nearest to uniform, which makes the answer unique and independent of the order."""

TOLERANCE = 1e-12


def min_norm_weights(gram: Array, capacity: float = 1.0) -> Array:
    """Solve min_a 1/2 a^T G a subject to sum a = 1 and 0 <= a_k <= C.

    A primal active-set method: the problem restricted to the weights that are not at a bound is one
    linear system, bounds are added when a step meets them and dropped when their multiplier has
    the wrong sign. It ends after finitely many steps at the minimum, up to rounding.

    Source: the problem is that of AE-KD (Du et al., NeurIPS 2020), whose code hands it to a
    one-class SVM with nu = 1 / (C m); C = 1 is the min-norm problem of MGDA (Desideri 2012).

    Args:
        gram: (m, m) inner products of the vectors, symmetric and positive semi-definite.
        capacity: C; below 1/m no weights could sum to one, so that 1/m is the least that is used.

    Returns:
        (m,) weights in float64. Uniform if all vectors are zero.
    """
    count = len(gram)
    weights = np.full(count, 1 / max(count, 1))
    scale = np.trace(gram) / max(count, 1)
    capacity = max(capacity, 1 / max(count, 1))
    # With C = 1/m, uniform is the only feasible point.
    if not scale > 0 or capacity * count - 1 < TOLERANCE:
        return weights
    hessian = gram / scale + RIDGE * np.eye(count)
    free = np.ones(count, dtype=bool)
    # Each pass adds or drops a bound; the limit guards against cycling through rounding only.
    for _ in range(100 * count):
        step = _step(hessian, weights, free)
        length, blocking = _room(weights, step, free, capacity)
        weights = weights + length * step
        if blocking is not None:
            weights[blocking] = 0.0 if step[blocking] < 0 else capacity
            free[blocking] = False
            continue
        released = _release(hessian @ weights, weights, free, capacity)
        if released is None:
            break
        free[released] = True
    weights = weights.clip(0.0, capacity)
    weights /= weights.sum()
    return weights


def _step(hessian: Array, weights: Array, free: Mask) -> Array:
    """From the weights to the minimum over the free ones, the sum being kept."""
    step = np.zeros_like(weights)
    size = int(free.sum())
    if size > 1:
        # [H 1; 1^T 0] [step; multiplier] = [-gradient; 0]
        system = np.ones((size + 1, size + 1))
        system[:size, :size] = hessian[np.ix_(free, free)]
        system[size, size] = 0.0
        right = np.append(-(hessian @ weights)[free], 0.0)
        step[free] = np.linalg.solve(system, right)[:size]
    return step


def _room(weights: Array, step: Array, free: Mask, capacity: float) -> tuple[float, int | None]:
    """How much of the step can be taken, at most all of it, and which weight forbids more."""
    length, blocking = 1.0, None
    for k in np.flatnonzero(free & (np.abs(step) > TOLERANCE)):
        bound = 0.0 if step[k] < 0 else capacity
        possible = max((bound - weights[k]) / step[k], 0.0)
        if possible < length:
            length, blocking = float(possible), int(k)
    return length, blocking


def _release(gradient: Array, weights: Array, free: Mask, capacity: float) -> int | None:
    """The bound that holds the objective up most; none at the minimum.

    There, one level parts the gradients: weights at zero have at least it, weights at the capacity
    at most it, and free weights have it. One weight always is free: it alone cannot be moved, as
    the sum is kept, and so never meets a bound.
    """
    level = gradient[free].mean()
    rise = np.where(weights < capacity / 2, level - gradient, gradient - level)
    rise[free] = 0.0
    worst = int(rise.argmax())
    return worst if rise[worst] > TOLERANCE else None
