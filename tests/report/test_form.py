"""What was read from a file is held against the form that it should have."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

import pytest

from ensemble_kd.errors import UserError
from ensemble_kd.report import Results, read_results
from ensemble_kd.report.form import expect_form


class Inner(TypedDict):
    n: int
    share: float | None


class Further(TypedDict, total=False):
    note: float | str


class Form(Further):
    rows: list[Inner]
    by_name: dict[str, Inner | None]
    sure: bool
    anything: Any


GOOD: dict[str, Any] = {
    "rows": [{"n": 1, "share": 0.5}, {"n": 0, "share": None, "more": "of it"}],
    "by_name": {"a": {"n": 2, "share": 1}, "b": None},
    "sure": True,
    "anything": object,
}


@pytest.mark.parametrize("note", [{}, {"note": 1.5}, {"note": "why"}])
def test_what_has_the_form_passes(note: dict[str, Any]) -> None:
    expect_form(GOOD | note, Form, Path("f.json"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": {}}, "rows: expected a list, got {}"),
        ({"rows": [3]}, "rows.0: expected keys and values, got 3"),
        ({"rows": [{"n": 1}]}, "rows.0: expected the key 'share', which is not there"),
        ({"rows": [{"n": 1.0, "share": 0}]}, "rows.0.n: expected a whole number, got 1.0"),
        ({"rows": [{"n": True, "share": 0}]}, "rows.0.n: expected a whole number, got true"),
        ({"rows": [{"n": 10**400, "share": 0}]}, "rows.0.n: expected a whole number, got 1000"),
        ({"by_name": {"a": {"n": 1, "share": "x"}}}, "by_name.a.share: expected a number"),
        ({"by_name": {"a": {"n": 1, "share": float("nan")}}}, "expected a number, got NaN"),
        ({"sure": 1}, "sure: expected true or false, got 1"),
        ({"note": None}, "note: expected a number or a text, got null"),
    ],
)
def test_the_first_key_that_is_wrong_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        expect_form(GOOD | change, Form, Path("f.json"))
    assert str(caught.value).startswith("f.json: ")
    assert message in str(caught.value)
    assert len(str(caught.value)) < 150


def test_results_that_are_whole_json_but_wrong_inside_are_refused(
    make_results: Callable[..., Results], tmp_path: Path
) -> None:
    path = tmp_path / "results.json"
    results: Any = make_results()
    results["predictors"]["student"]["test"]["n"] = None
    path.write_text(json.dumps(results, default=str))
    wrong = "predictors.student.test.n: expected a whole number, got null"
    with pytest.raises(UserError, match=wrong):
        read_results(path)
