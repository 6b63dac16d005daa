"""What was logged before a stage was cut off stays, and nothing stands there twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from ensemble_kd.csv_logger import Csv

TABLE = Path("logs/teacher/0/metrics.csv")


def log(*steps: int, name: str = "a") -> None:
    logger = Csv()(Path("logs"), "teacher/0")
    for step in steps:
        logger.log_metrics({name: float(step)}, step)
    logger.save()


def test_an_attempt_that_was_cut_off_is_continued() -> None:
    log(1, 3, 5)
    log(3, 5, 7)
    assert TABLE.read_text().split() == ["a,step", "1.0,1", "3.0,3", "5.0,5", "7.0,7"]


def test_new_columns_may_come() -> None:
    log(1)
    log(2, name="b")
    assert TABLE.read_text().split() == ["a,b,step", "1.0,,1", ",2.0,2"]


def test_a_stage_that_begins_anew_begins_its_table_anew() -> None:
    log(1, 3)
    log(1)
    assert TABLE.read_text().split() == ["a,step", "1.0,1"]


@pytest.mark.parametrize(
    ("left", "kept"),
    [
        ("a,step\r\n1.0,1\r\n3.", ["1.0,1"]),
        ("a,step\r\n1.0,1\r\n3.0\r\n", ["1.0,1"]),
        ("a,step\r\n", []),
        ("a,st", []),
        ("", []),
        ("something\nelse,and,more\n", []),
    ],
)
def test_what_is_damaged_is_left_out(left: str, kept: list[str]) -> None:
    TABLE.parent.mkdir(parents=True)
    TABLE.write_text(left, newline="")
    log(7)
    assert TABLE.read_text().split() == ["a,step", *kept, "7.0,7"]
