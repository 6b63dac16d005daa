"""The table at the end of a run, as text."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest

from ensemble_kd.report import Results, print_results


class Terminal(io.StringIO):
    """A file that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def ordinary_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables by which a caller may tell rich to take a file for something else."""
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")


def printed(results: Results, file: io.StringIO) -> str:
    print_results(results, file)
    return file.getvalue()


def test_has_a_row_for_each_predictor_in_order_and_the_verdict(results: Results) -> None:
    lines = printed(results, io.StringIO()).splitlines()
    rows = [line.split() for line in lines if line[:1].isalpha() and "%" in line]
    assert [row[0] for row in rows] == [
        "teacher/0",
        "teacher/2",
        "teacher/10",
        "ensemble",
        "assistant/0",
        "control/no_teacher",
        "student",
    ]
    assert rows[-1] == ["student", "93.6%", "0.064", "0.032", "690", "1.50", "83.6%"]
    assert rows[3] == ["ensemble", "94.7%", "0.053", "0.027", "30,210", "1.50", "-"]
    assert rows[1][5] == "-"  # was not timed
    assert results["verdict"] in lines
    assert any("360 test samples" in line for line in lines)


def test_plain_text_is_aligned_and_has_no_escape_codes(results: Results) -> None:
    said = printed(results, io.StringIO())
    assert "\x1b" not in said
    lines = said.splitlines()
    assert all(line == line.rstrip() for line in lines)
    header = next(line for line in lines if line.startswith("predictor"))
    rows = [line for line in lines if "%" in line and line.startswith(tuple("tseac"))]
    table = [line for line in rows if len(line.split()) == 7]
    assert len(table) == 7
    for name, cells in (("accuracy", 1), ("parameters", 4), ("agreement", 6)):
        end = header.index(name) + len(name)
        for line in table:
            assert line[:end].split()[-1] == line.split()[cells]


def test_plain_text_is_the_same_however_narrow_the_terminal_was(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = printed(results, io.StringIO())
    monkeypatch.setenv("COLUMNS", "20")
    assert printed(results, io.StringIO()) == wide


def test_on_a_terminal_the_student_stands_out_and_80_columns_suffice(results: Results) -> None:
    said = printed(results, Terminal())
    assert "\x1b[1mstudent" in said
    assert "…" not in said
    assert "ECE" not in said  # there is no room for everything
    assert "agreement" in said


def test_what_has_room_is_shown(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    said = printed(results, Terminal())
    assert all(column in said for column in ("NLL", "ECE", "parameters", "ms/1,000", "agreement"))


def test_unknown_numbers_are_dashes(make_results: Callable[..., Results]) -> None:
    results = make_results({"student": 0.5})
    scores = results["predictors"]["student"]["test"]
    scores["accuracy"] = scores["nll"] = scores["ece"] = None
    results["pairs"] = {}
    said = printed(results, io.StringIO())
    said = printed(results, io.StringIO())
    row = next(line for line in said.splitlines() if line.startswith("student"))
    assert row.split() == ["student", "-", "-", "-", "690", "1.50", "-"]


def test_large_networks_are_counted_in_millions(results: Results) -> None:
    results["predictors"]["ensemble"]["parameters"] = 170_000_000
    assert "170.0 M" in printed(results, io.StringIO())


def test_a_size_that_nobody_knows_is_a_dash(results: Results) -> None:
    results["predictors"]["teacher/0"]["parameters"] = None
    said = printed(results, io.StringIO())
    row = next(line for line in said.splitlines() if line.startswith("teacher/0"))
    assert row.split()[4] == "-"
    results["predictors"]["student"]["test"]["span_f1"] = 0.5
    assert "span F1" in printed(results, io.StringIO())
    assert "span F1" not in said
