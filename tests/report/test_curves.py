"""``curves.csv``: writing, reading, and reading what a crash left."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from ensemble_kd.errors import UserError
from ensemble_kd.report import Point, append_points, read_points
from ensemble_kd.report.curves import by_learner, learner

POINTS = [
    Point("teacher/0", 0, "student/label", 2.25),
    Point("teacher/0", 0, "student/val_accuracy", 0.5),
    Point("teacher/0", 1, "student/label", 1.125),
    Point("student", 0, "peer/1/mutual", 0.75),
    Point("student", 0, "lr", 0.01),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "curves.csv"


def test_is_a_table_that_others_can_read(path: Path) -> None:
    append_points(path, POINTS[:3])
    append_points(path, POINTS[3:])
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {
        "stage": "teacher/0",
        "epoch": "0",
        "name": "student/label",
        "value": "2.25",
    }
    assert len(rows) == len(POINTS)


def test_reads_what_was_appended(path: Path) -> None:
    append_points(path, POINTS[:3])
    append_points(path, POINTS[3:])
    assert read_points(path) == POINTS


def test_keeps_names_with_commas_and_values_that_are_not_finite(path: Path) -> None:
    append_points(path, [Point("a,b", 0, 'student/"x"', float("inf"))])
    assert read_points(path) == [Point("a,b", 0, 'student/"x"', float("inf"))]


def test_of_no_points_writes_nothing(path: Path) -> None:
    append_points(path, [])
    assert not path.exists()


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_row_that_was_cut_off_is_left_out(path: Path, cut: int) -> None:
    append_points(path, POINTS)
    path.write_bytes(path.read_bytes()[:-cut])
    assert read_points(path) == POINTS[: -1 if cut < 20 else -2]


def test_an_epoch_that_was_written_twice_counts_once(path: Path) -> None:
    again = POINTS[0]._replace(value=9.0)
    append_points(path, [*POINTS, again])
    assert read_points(path) == [again, *POINTS[1:]]


def test_an_empty_file_has_no_points(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    assert read_points(path) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "expected the columns stage,epoch,name,value, got a,b"),
        ("stage,epoch,name,value\ns,0,n,1\ns,one,n,2\n", "line 3: expected stage,epoch,name,value"),
        ("stage,epoch,name,value\ns,0,n\n", "line 2: expected stage,epoch,name,value"),
        (b"\xff\xfe\x00\n", "expected the curves of a run"),
        (b"stage,epoch,name,value\n" + b"x" * 200_000 + b"\n", "expected the curves of a run"),
    ],
)
def test_something_else_is_one_clear_line(path: Path, text: str | bytes, message: str) -> None:
    path.parent.mkdir()
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(UserError, match=message):
        read_points(path)


def test_no_file_is_one_clear_line(path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*curves\.csv"):
        read_points(path)


def test_the_student_of_a_stage_is_named_by_the_stage() -> None:
    assert learner("teacher/0", "student/label") == "teacher/0"
    assert learner("student", "peer/1/val_accuracy") == "peer/1"
    assert learner("student", "student/soft") == "student"


def test_series_by_learner_leave_out_what_nobody_owns() -> None:
    assert by_learner(POINTS) == {
        "teacher/0": {"label": [(0, 2.25), (1, 1.125)], "val_accuracy": [(0, 0.5)]},
        "peer/1": {"mutual": [(0, 0.75)]},
    }
