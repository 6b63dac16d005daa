"""What a column becomes: numbers, categories, and what cannot be learned from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ensemble_kd.data.columns import File
from ensemble_kd.data.features import MOST, feature
from ensemble_kd.errors import UserError


def column(
    cells: Any, other: Any = None, categorical: bool = False, **settings: Any
) -> tuple[np.ndarray[Any, Any], Sequence[Mapping[str, Any]]]:
    """What a column of a training part becomes, beside one of a test part."""
    files = {"train": File(pa.table({"x": cells}), "here")}
    if other is not None:
        files["test"] = File(pa.table({"x": other}), "there")
    made = feature(files, "x", categorical, **settings)
    return made.values["train"], made.described


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1", "2.5", "-3e2"], [1, 2.5, -300]),
        ([" 1 ", "2", "+3"], [1, 2, 3]),
        ([1, 2, 3], [1, 2, 3]),
        ([0.5, None, 2.0], [0.5, math.nan, 2]),
        (["1", "", "NA"], [1, math.nan, math.nan]),
    ],
)
def test_numbers(cells: Any, expected: list[float]) -> None:
    values, described = column(cells, missing="mean")
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values[:, 0], np.array(expected, np.float32))
    assert described == [{"column": "x"}]


def test_categories() -> None:
    values, described = column(["b", "a", "", "b"], ["c", "a"], missing="mean")
    nan = math.nan
    np.testing.assert_array_equal(values, [[0, 1, 0], [1, 0, 0], [nan] * 3, [0, 1, 0]])
    assert described == [{"column": "x", "is": value} for value in "abc"]
    codes, described = column(["b", "a", "", "b"], ["c"], encoding="codes", missing="mean")
    assert codes[:, 0].tolist() == [1, 0, 3, 1]
    assert described == [{"column": "x", "codes": ["a", "b", "c"]}]
    named, described = column(["10", "9", "10"], categorical=True)
    assert named.tolist() == [[1, 0], [0, 1], [1, 0]]
    flags, described = column([True, False, True])
    assert flags.tolist() == [[0, 1], [1, 0], [0, 1]]
    assert [each["is"] for each in described] == ["false", "true"]


@pytest.mark.parametrize(
    ("cells", "other", "settings", "message"),
    [
        (
            ["1", "", "3"],
            None,
            {},
            r"column 'x' has 1 empty cells or NaN, first in row 2; data.sou",
        ),
        (["1", "nan", ""], None, {}, "has 2 empty cells or NaN, first in row 2"),
        (["a", "", "b"], None, {}, "has 1 empty cells or NaN, first in row 2"),
        ([1.0, math.nan], None, {}, "has 1 empty cells or NaN, first in row 2"),
        (["1", "inf"], None, {}, "holds 1 values that are infinite or beyond float32, first in r"),
        (["1", "1e300"], None, {"missing": "mean"}, "infinite or beyond float32, first in row 2"),
        (
            ["1", "2", "x"],
            None,
            {},
            r"column 'x' holds numbers, but 'x' in row 3; repair it, or se",
        ),
        (["1", "2"], ["3", "y"], {}, "^there: column 'x' holds numbers, but 'y' in row 2"),
        (["", ""], None, {"missing": "mean"}, "column 'x' is empty; leave it out"),
        ([f"v{k}" for k in range(MOST + 1)], None, {}, "holds 257 different texts, too many for a"),
        ([[1], [2]], None, {}, "column 'x' must hold text or numbers, got list"),
    ],
)
def test_columns_that_cannot_be_learned_from(
    cells: Any, other: Any, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as raised:
        column(cells, other, **settings)
    assert "\n" not in str(raised.value)
