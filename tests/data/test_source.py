from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
import pytest

from ensemble_kd.data.source import checked, limited
from ensemble_kd.errors import UserError

X = np.zeros((6, 2, 3), np.float32)
Y = np.array([0, 1, 2, 0, 1, 2])


def test_types_are_made_uniform() -> None:
    samples = checked(X.astype(np.float64), Y.astype(np.uint8), "here")
    assert samples.inputs.dtype == np.float32
    assert samples.labels.dtype == np.int64
    assert checked(X.astype(np.uint8), Y, "here").inputs.dtype == np.uint8
    assert checked(X.astype(np.float16), Y, "here").inputs.dtype == np.float32


def broken(value: float, *places: tuple[int, int, int]) -> npt.NDArray[np.float64]:
    inputs = np.zeros((6, 2, 3))
    for place in places:
        inputs[place] = value
    return inputs


@pytest.mark.parametrize(
    ("inputs", "labels", "classes", "message"),
    [
        (X[:0], Y[:0], None, "expected inputs of shape (samples, features...)"),
        (X[:, :0], Y, None, "without an empty axis, got (6, 0, 3)"),
        (Y, Y, None, "expected inputs of shape (samples, features...)"),
        (X, Y[:5], None, "expected one label for each of 6 samples, got labels of shape (5,)"),
        (X, Y[:, None], None, "got labels of shape (6, 1)"),
        (X, Y.astype(float), None, "labels must be integers, got float64"),
        (X, Y.astype(str), None, "labels must be integers, got <U"),
        (X, Y - 1, None, "labels must be >= 0, got -1 (2 negative labels, first in sample 0)"),
        (X, Y, 2, "labels must be in 0..1, got 2 (2 labels out of range, first in sample 2)"),
        (X, Y * 0, None, "labels must name at least 2 classes"),
        (X, np.full(6, 2**63, np.uint64), None, "labels must fit into int64"),
        (X.astype(np.int32), Y, None, "inputs must be uint8 (bytes of images) or floating point"),
        (X.astype(str), Y, None, "inputs must be uint8"),
        (
            broken(np.nan, (4, 0, 1), (4, 1, 1), (5, 0, 0)),
            Y,
            None,
            "inputs hold 3 values that are NaN, infinite or beyond float32, in 2 samples, first "
            "in sample 4",
        ),
        (broken(-np.inf, (1, 0, 0)), Y, None, "hold 1 values"),
        (broken(1e300, (1, 0, 0)), Y, None, "beyond float32, in 1 samples, first in sample 1"),
    ],
)
def test_what_cannot_be_learned_from(
    inputs: npt.NDArray[np.generic],
    labels: npt.NDArray[np.generic],
    classes: int | None,
    message: str,
) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as raised:
        checked(inputs, labels, "the file", classes)
    assert str(raised.value).startswith("the file: ")
    assert "\n" not in str(raised.value)


def test_limited() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    assert limited(labels, None, True, "here").tolist() == list(range(8))
    assert limited(labels, 4, True, "here").tolist() == [0, 1, 4, 5]
    assert limited(labels, 4, False, "here").tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        (9, "here: limit must be between 1 and 8, got 9"),
        (0, "here: limit must be between 1 and 8, got 0"),
        (1, r"here: limit must be between 2 \(one of each class\) and 8, got 1"),
    ],
)
def test_limits_that_cannot_be_met(limit: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        limited(np.array([0, 1] * 4), limit, True, "here")


def test_a_limit_needs_every_class() -> None:
    with pytest.raises(UserError, match="class 1 has 0 samples"):
        limited(np.array([0, 2] * 4), 4, True, "here")
