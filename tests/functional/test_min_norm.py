from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.svm import OneClassSVM

from ensemble_kd.functional import min_norm_weights

PROPERTY = settings(deadline=None, derandomize=True, max_examples=80)
Array = NDArray[np.float64]


def vectors(seed: int, count: int, size: int) -> Array:
    """Vectors that lean to one side, so that a minimum is seldom the zero vector."""
    generator = np.random.default_rng(seed)
    lengths = 10 ** generator.uniform(-1, 1, (count, 1))
    return (generator.normal(size=(count, size)) + generator.uniform(0, 2)) * lengths


def reference_brute_force(gram: Array, capacity: float) -> Array:
    """The best of all choices of which weights are zero, which at the capacity, which between."""
    count = len(gram)
    best, least = np.full(count, 1 / count), np.inf
    for states in itertools.product((0, 1, 2), repeat=count):
        fixed = np.array([capacity * (state == 1) for state in states])
        free = np.array(states) == 2
        size, rest = int(free.sum()), 1 - fixed.sum()
        weights = fixed
        if size:
            system = np.block(
                [
                    [gram[np.ix_(free, free)], np.ones((size, 1))],
                    [np.ones((1, size)), np.zeros((1, 1))],
                ]
            )
            right = np.append(-(gram @ fixed)[free], rest)
            weights = fixed.copy()
            weights[free] = np.linalg.lstsq(system, right, rcond=None)[0][:size]
        inside = (weights > -1e-9).all() and (weights < capacity + 1e-9).all()
        if inside and abs(weights.sum() - 1) < 1e-9 and weights @ gram @ weights < least:
            best, least = weights, weights @ gram @ weights
    return best


def reference_slsqp(gram: Array, capacity: float) -> Array:
    count = len(gram)
    scaled = gram / np.trace(gram)
    found = minimize(
        lambda a: a @ scaled @ a,
        np.full(count, 1 / count),
        jac=lambda a: 2 * scaled @ a,
        bounds=[(0, capacity)] * count,
        constraints=[{"type": "eq", "fun": lambda a: a.sum() - 1, "jac": lambda a: np.ones(count)}],
        method="SLSQP",
        options={"ftol": 1e-16, "maxiter": 1000},
    )
    # It may leave the constraints by a little.
    inside = found.x.clip(0, capacity)
    return np.asarray(inside / inside.sum())


def capacity_for(count: int, share: float) -> float:
    """Between 1/m, where nothing can be chosen, and one."""
    return 1 / count + share * (1 - 1 / count)


@PROPERTY
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 8), st.floats(0, 1))
def test_it_is_the_best_of_all_choices_of_bounds(
    seed: int, count: int, size: int, share: float
) -> None:
    rows = vectors(seed, count, size)
    gram, capacity = rows @ rows.T, capacity_for(count, share)
    weights = min_norm_weights(gram, capacity)
    assert weights.sum() == pytest.approx(1, abs=1e-12)
    assert (weights >= 0).all()
    assert (weights <= capacity + 1e-9).all()
    want = reference_brute_force(gram, capacity)
    scale = np.trace(gram) / count
    assert weights @ gram @ weights <= want @ gram @ want + 1e-8 * scale
    if size > count:
        np.testing.assert_allclose(weights, want, atol=1e-5)


@PROPERTY
@given(st.integers(0, 10**6), st.integers(2, 9), st.floats(0, 1))
def test_it_is_not_worse_than_a_general_solver(seed: int, count: int, share: float) -> None:
    rows = vectors(seed, count, count + 3)
    gram, capacity = rows @ rows.T, capacity_for(count, share)
    weights, want = min_norm_weights(gram, capacity), reference_slsqp(gram, capacity)
    scale = np.trace(gram) / count
    assert weights @ gram @ weights <= want @ gram @ want + 1e-6 * scale


@PROPERTY
@given(st.integers(0, 10**6), st.integers(2, 12), st.integers(1, 20), st.floats(0, 1))
def test_the_conditions_of_a_minimum_hold(seed: int, count: int, size: int, share: float) -> None:
    """A level parts the gradients of those that may grow from those that may shrink."""
    rows = vectors(seed, count, size)
    gram, capacity = rows @ rows.T, capacity_for(count, share)
    weights = min_norm_weights(gram, capacity)
    gradient = gram @ weights / (np.trace(gram) / count)
    may_grow, may_shrink = weights < capacity - 1e-9, weights > 1e-9
    if may_grow.any():
        assert gradient[may_shrink].max() <= gradient[may_grow].min() + 1e-7


@pytest.mark.parametrize("capacity", [0.4, 0.6, 1.0])
def test_it_is_what_a_one_class_support_vector_machine_finds(capacity: float) -> None:
    """The published code solves the same problem this way, with nu = 1 / (C m)."""
    rows = vectors(3, 4, 10)
    gram = rows @ rows.T
    machine = OneClassSVM(kernel="precomputed", nu=1 / (capacity * 4), tol=1e-10).fit(gram)
    want = np.zeros(4)
    want[machine.support_] = machine.dual_coef_[0]
    np.testing.assert_allclose(min_norm_weights(gram, capacity), want / want.sum(), atol=1e-6)


def test_two_vectors_in_closed_form() -> None:
    """The point of the segment that is nearest to zero."""
    first, second = np.array([1.0, 0.0]), np.array([0.0, 2.0])
    rows = np.stack([first, second])
    share = (second - first) @ second / ((second - first) @ (second - first))
    np.testing.assert_allclose(min_norm_weights(rows @ rows.T), [share, 1 - share], atol=1e-7)


def test_a_shorter_vector_on_the_same_line_takes_what_the_capacity_allows() -> None:
    rows = np.array([[1.0], [2.0], [4.0]])
    gram = rows @ rows.T
    np.testing.assert_allclose(min_norm_weights(gram, 1.0), [1, 0, 0], atol=1e-7)
    np.testing.assert_allclose(min_norm_weights(gram, 0.6), [0.6, 0.4, 0], atol=1e-7)
    np.testing.assert_allclose(min_norm_weights(gram, 0.5), [0.5, 0.5, 0], atol=1e-7)


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_the_least_capacity_is_uniform(count: int, share: float) -> None:
    rows = vectors(4, count, 3)
    weights = min_norm_weights(rows @ rows.T, share / count)
    np.testing.assert_array_equal(weights, np.full(count, 1 / count))


def test_vectors_of_length_zero_are_uniform() -> None:
    np.testing.assert_array_equal(min_norm_weights(np.zeros((3, 3))), np.full(3, 1 / 3))


def test_without_vectors() -> None:
    assert min_norm_weights(np.zeros((0, 0))).shape == (0,)


def test_equal_vectors_share_equally() -> None:
    """Any division among them is as short; the one nearest to uniform does not depend on order."""
    rows = vectors(5, 2, 6)[[0, 1, 1, 0, 1]]
    weights = min_norm_weights(rows @ rows.T)
    assert weights[0] == pytest.approx(weights[3], abs=1e-6)
    np.testing.assert_allclose(weights[[1, 2, 4]], weights[1], atol=1e-6)


@pytest.mark.parametrize("size", [1, 3, 12])
@pytest.mark.parametrize("factor", [1e-12, 1e12])
def test_order_and_scale_do_not_matter(size: int, factor: float) -> None:
    rows = vectors(6, 6, size)
    order = np.array([3, 1, 5, 0, 2, 4])
    weights = min_norm_weights(rows @ rows.T, 0.4)
    permuted = factor * rows[order]
    np.testing.assert_allclose(
        min_norm_weights(permuted @ permuted.T, 0.4), weights[order], atol=1e-4
    )
