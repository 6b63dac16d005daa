"""What predictions say of teachers, and of what passed from them to a student."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ensemble_kd.evaluation import Measured
from ensemble_kd.predictions import Predictions
from ensemble_kd.report.roles import pairs
from ensemble_kd.scorecard import scorecard
from ensemble_kd.types import UNLABELLED

TARGET = [0, 0, 0, 0, 1, 1, 2, UNLABELLED]
SAID = {
    "teacher/0": [0, 0, 1, 1, 1, 0, 2, 1],
    "teacher/1": [0, 1, 0, 1, 1, 0, 2, 1],
    "ensemble": [0, 0, 0, 1, 1, 0, 2, 1],
    "control/no_teacher": [0, 1, 1, 0, 1, 1, 1, 0],
    "student": [0, 0, 1, 1, 1, 1, 1, 0],
}


def predictions(*names: str) -> Measured:
    def logits(classes: list[int]) -> Tensor:
        return torch.eye(3)[torch.tensor(classes)] * 9

    said = {name: logits(SAID[name]) for name in names}
    index = torch.arange(len(TARGET))
    found = Predictions(("a", "b", "c"), index, torch.tensor(TARGET), said)
    return Measured({}, {}, found)


def test_transfer_counts_where_teachers_and_control_differ() -> None:
    found = scorecard(predictions(*SAID), ["teacher/0", "teacher/1"]).transfer
    # The ensemble is right and the control wrong on 1, 2 and 6: the student is right on 1 alone.
    # The control is right and the ensemble wrong on 3 and 5: the student is wrong on 3.
    # The student errs on 2, 3 and 6, as the ensemble does on 3.
    assert found["student"] == pytest.approx((1 / 3, 1 / 3, 3, 1 / 2, 2))
    alone = found["control/no_teacher"]
    assert alone.error_inheritance == 0
    assert math.isnan(alone.positive)
    assert math.isnan(alone.negative)


def test_teachers_are_held_against_each_other() -> None:
    together = scorecard(predictions(*SAID), ["teacher/0", "teacher/1"]).teachers
    assert together is not None
    assert together.disagreement == pytest.approx(2 / 8)
    # Both right on 0, 4 and 6, both wrong on 3 and 5, one of them on 1, the other on 2.
    assert together.q_statistic == pytest.approx((3 * 2 - 1) / (3 * 2 + 1))
    assert together.oracle_accuracy == pytest.approx(5 / 7)


def test_without_a_control_errors_are_compared_all_the_same() -> None:
    (student,) = scorecard(predictions("teacher/0", "ensemble", "student"), ["teacher/0"]).transfer
    assert student == "student"


def test_without_teachers_there_is_nothing_to_say() -> None:
    card = scorecard(predictions("control/no_teacher", "student"), [])
    assert card[1:] == (None, {})


def test_every_pair_has_one_reference() -> None:
    names = ["student", "control/no_teacher", "teacher/1", "teacher/0", "ensemble", "assistant/0"]
    found = pairs(names)
    assert len(found) == len({frozenset(pair) for pair in found}) == 15
    assert {one for one, other in found if other == "ensemble"} == set(names) - {"ensemble"}
    assert ("teacher/1", "teacher/0") in found
    assert ("assistant/0", "teacher/1") in found
    assert ("student", "control/no_teacher") in found
    assert ("control/no_teacher", "assistant/0") in found
