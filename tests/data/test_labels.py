"""Classes from labels as files say them."""

from __future__ import annotations

import math
from typing import Any

import pyarrow as pa
import pytest

from ensemble_kd.data.columns import File
from ensemble_kd.data.labels import bio, checked_names, class_names, class_numbers, labels_of
from ensemble_kd.errors import UserError
from ensemble_kd.types import UNLABELLED


@pytest.mark.parametrize(
    ("cells", "given", "expected"),
    [
        (["b", "a", None, "b"], None, ("a", "b")),
        (["10", "9", "2"], None, ("2", "9", "10")),
        (["-1", "1"], None, ("-1", "1")),
        (["10", "9", "x"], None, ("10", "9", "x")),
        (["b"], ["b", "a"], ("b", "a")),
    ],
)
def test_names(cells: list[str | None], given: list[str] | None, expected: object) -> None:
    assert class_names(cells, given, "here") == expected


@pytest.mark.parametrize(("cells", "got"), [(["a", "a", None], "a"), ([None], "no label")])
def test_one_class_is_none(cells: list[str | None], got: str) -> None:
    with pytest.raises(UserError, match=f"here: labels must name at least 2 classes, got {got}"):
        class_names(cells, None, "here")


@pytest.mark.parametrize(
    ("cells", "names", "expected"),
    [
        (["b", "a", None], ("a", "b"), [1, 0, UNLABELLED]),
        (["9", "2"], ("2", "9"), [1, 0]),  # by name
        (["1", "0"], ("bad", "good"), [1, 0]),  # by number
        (["1", "0"], ("1", "0"), [0, 1]),  # by name, although they are numbers
    ],
)
def test_numbers(cells: list[str | None], names: tuple[str, ...], expected: list[int]) -> None:
    found = class_numbers(cells, names, "here", partly=True, ordered=True)
    assert found.tolist() == expected
    assert found.dtype == "int64"


@pytest.mark.parametrize(
    ("cells", "names", "partly", "message"),
    [
        (["a", "c"], ("a", "b"), True, "label 'c' in row 2 is none of the 2 classes of the train"),
        (["1", "2"], ("bad", "good"), True, "label '2' in row 2 is none of the 2 classes .*: 0, 1"),
        (["1", "good"], ("bad", "good"), True, "label '1' in row 1 is none"),
        (["3"], ("1", "2"), True, "label '3' in row 1"),
        (["a", None], ("a", "b"), False, "expected a label in every row, got none in row 2"),
        (["clas 7"], tuple(f"class {k}" for k in range(30)), True, "did you mean 'class 7'"),
    ],
)
def test_labels_that_are_no_class(
    cells: list[str | None], names: tuple[str, ...], partly: bool, message: str
) -> None:
    with pytest.raises(UserError, match=message) as raised:
        class_numbers(cells, names, "here", partly, ordered=True)
    assert str(raised.value).startswith("here: ")
    assert "\n" not in str(raised.value)


def test_numbers_count_only_names_whose_order_was_said() -> None:
    with pytest.raises(
        UserError, match=r"here: label '0' in row 1 .*; numbers count the classes wh"
    ):
        class_numbers(["0", "1"], ("bad", "good"), "here", partly=False, ordered=False)
    found = class_numbers(["9", "2"], ("2", "9"), "here", partly=False, ordered=False)
    assert found.tolist() == [1, 0]


@pytest.mark.parametrize(
    "said",
    [
        ["1", "", "-100", None, "-100.0"],
        [1, None, -100, None, None],
        [1.0, math.nan, -100.0, None, math.nan],
    ],
)
def test_labels_that_are_not_known(said: list[Any]) -> None:
    assert labels_of(File(pa.table({"y": said}), "here"), "y") == ["1", None, None, None, None]


def test_names_that_were_given() -> None:
    assert checked_names(None) is None
    assert checked_names(["b", "a"]) == ("b", "a")
    for names in (["a"], ["a", "a"], []):
        with pytest.raises(ValueError, match="names must be at least two, all different"):
            checked_names(names)


def test_tags_in_the_usual_order() -> None:
    tags = ["I-person", "B-work", "O", "B-person", "I-work", "O"]
    assert bio(tags) == ("O", "B-person", "I-person", "B-work", "I-work")
    assert bio(["VERB", "NOUN"]) == ("NOUN", "VERB")
