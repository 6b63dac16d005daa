from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble_kd.data.splits import RowArray, apportion, drawn, split
from ensemble_kd.errors import UserError


def labels_of(counts: list[int], seed: int = 0) -> RowArray:
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))


def reference_hamilton(counts: list[int], total: int) -> list[int]:
    """Largest remainders with exact fractions, for sizes at which each class gets a seat anyway."""
    whole = sum(counts)
    seats = [count * total // whole for count in counts]
    remainders = [-(count * total % whole) for count in counts]
    for number in sorted(range(len(counts)), key=lambda k: (remainders[k], k)):
        if sum(seats) < total:
            seats[number] += 1
    return seats


@given(st.lists(st.integers(20, 400), min_size=2, max_size=12), st.data())
def test_apportion_is_hamilton(counts: list[int], data: st.DataObject) -> None:
    total = data.draw(st.integers(sum(counts) // 2, sum(counts)))
    expected = reference_hamilton(counts, total)
    seats = apportion(np.array(counts), total)
    # Where remainders tie, rounding may give the seat to another class.
    assert sorted(seats) == sorted(expected) or np.abs(seats - expected).max() <= 1
    assert seats.sum() == total


@given(st.lists(st.integers(3, 60), min_size=2, max_size=9), st.integers(0, 2), st.data())
def test_apportion_bounds(counts: list[int], spare: int, data: st.DataObject) -> None:
    sizes = np.array(counts)
    total = data.draw(st.integers(len(counts), int((sizes - spare).sum())))
    seats = apportion(sizes, total, spare)
    assert seats.sum() == total
    assert (seats >= 1).all()
    assert (seats <= sizes - spare).all()


def test_apportion_literal() -> None:
    assert apportion(np.array([600, 300, 100]), 10).tolist() == [6, 3, 1]
    assert apportion(np.array([1000, 1, 1]), 5).tolist() == [3, 1, 1]
    with pytest.raises(ValueError, match=r"total must be in \[2, 4\], got 5"):
        apportion(np.array([3, 3]), 5, spare=1)


def test_drawn_without_a_seed_takes_the_first() -> None:
    labels = np.array([0, 0, 1, 1, 0, 1, 0, 1])
    assert drawn(labels, 4).tolist() == [0, 1, 2, 3]
    assert drawn(np.array([0, 0, 0, 1, 1]), 2).tolist() == [0, 3]


def test_drawn_is_nested_and_depends_on_the_seed() -> None:
    labels = labels_of([100] * 5)
    small, large = drawn(labels, 50, seed=1), drawn(labels, 100, seed=1)
    assert set(small) < set(large)
    assert drawn(labels, 50, seed=1).tolist() == small.tolist()
    assert drawn(labels, 50, seed=2).tolist() != small.tolist()


def test_drawn_is_fair() -> None:
    """Over many seeds each sample is chosen about equally often."""
    labels = labels_of([20, 20])
    chosen = np.zeros(40)
    for seed in range(600):
        chosen[drawn(labels, 10, seed=seed)] += 1
    assert chosen.min() > 100
    assert chosen.max() < 200


@given(
    st.lists(st.integers(3, 40), min_size=2, max_size=8),
    st.floats(0.05, 0.4),
    st.floats(0.05, 0.4),
    st.integers(0, 2**31),
)
def test_split_covers_stratified(
    counts: list[int], val_share: float, test_share: float, seed: int
) -> None:
    labels = labels_of(counts)
    parts = split(labels, len(counts), val_share, test_share, seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    for part, share in zip(parts[1:], (val_share, test_share), strict=True):
        assert len(part) == max(round(share * len(labels)), len(counts))
        assert part.tolist() == sorted(part.tolist())
    for part in parts:
        assert set(labels[part]) == set(range(len(counts)))


def test_split_is_proportional() -> None:
    labels = labels_of([600, 300, 100])
    parts = split(labels, 3, 0.1, 0.2, seed=3)
    assert [np.bincount(labels[part]).tolist() for part in parts] == [
        [420, 210, 70],
        [60, 30, 10],
        [120, 60, 20],
    ]


def test_split_depends_on_the_seed_alone() -> None:
    labels = labels_of([50] * 4)
    once = split(labels, 4, 0.2, 0.2, seed=0)
    np.random.seed(5)  # noqa: NPY002 - global state is what must not matter
    assert [part.tolist() for part in split(labels, 4, 0.2, 0.2, seed=0)] == [
        part.tolist() for part in once
    ]
    other = split(labels, 4, 0.2, 0.2, seed=1)
    assert all(a.tolist() != b.tolist() for a, b in zip(once, other, strict=True))


def test_split_without_a_test_part() -> None:
    train, val, test = split(labels_of([10, 10]), 2, 0.2, None, seed=0)
    assert (len(train), len(val), len(test)) == (16, 4, 0)


@pytest.mark.parametrize(
    ("counts", "test_share", "message"),
    [
        ([10, 2], 0.1, "class 1 has 2 samples, at least 3 .* training, validation and test"),
        ([1, 10], None, "class 0 has 1 samples, at least 2 .* training and validation"),
        ([10, 10, 0, 10], 0.1, "class 2 has 0 samples"),
    ],
)
def test_split_refuses_rare_classes(
    counts: list[int], test_share: float | None, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        split(labels_of(counts), len(counts), 0.1, test_share, seed=0)


def test_shares_that_leave_no_training_sample() -> None:
    with pytest.raises(UserError, match=r"the validation part must be between 2 .* got 10"):
        split(labels_of([6, 6]), 2, 0.8, 0.15, seed=0)
