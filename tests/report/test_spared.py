"""Which teachers an ensemble would not miss."""

from __future__ import annotations

import math

import pytest

from ensemble_kd.report.spared import spared

REST = "without it the validation accuracy is not lower, or by less than two standard errors."


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([0.02, 0.03], "The ensemble would miss each of its teachers."),
        ([0.005, 0.03], f"The ensemble would not miss teacher/0: {REST}"),
        (
            [0.0, 0.008],
            f"The ensemble would not miss teacher/0 or teacher/1, each by itself: {REST}",
        ),
        ([0.03, -0.005], f"The ensemble would not miss teacher/1: {REST}"),
        (
            [0.03, -0.05],
            f"The ensemble would not miss teacher/1: {REST} Without teacher/1 it is 5.0 points "
            "higher: leave it out.",
        ),
        ([None, 0.03], "The ensemble would miss each of its teachers."),
        ([None, math.nan], ""),
    ],
)
def test_one_rule_says_which_teacher_could_go(
    differences: list[float | None], expected: str
) -> None:
    worth = {
        f"teacher/{place}": {"leave_one_out": value, "leave_one_out_error": 0.004}
        for place, value in enumerate(differences)
    }
    assert spared(worth) == expected


@pytest.mark.parametrize("error", [None, math.nan])
@pytest.mark.parametrize("difference", [0.5, -0.5])
def test_of_a_single_sample_nothing_is_certain(difference: float, error: float | None) -> None:
    worth = {"teacher/0": {"leave_one_out": difference, "leave_one_out_error": error}}
    assert spared(worth) == f"The ensemble would not miss teacher/0: {REST}"
