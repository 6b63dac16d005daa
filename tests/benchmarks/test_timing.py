"""The arithmetic of timings, and the page that they are written into."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[2]
PAGE = FOLDER / "docs" / "performance.md"


@pytest.fixture
def timing(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("benchmarks/timing.py")


def test_ratios_are_taken_round_by_round(timing: ModuleType) -> None:
    ours = [timing.Cost(cpu, wall) for cpu, wall in ((2, 4), (30, 10), (8, 1), (5, 6), (9, 2))]
    theirs = [timing.Cost(cpu, wall) for cpu, wall in ((1, 2), (10, 10), (2, 2), (5, 2), (9, 1))]
    found = timing.ratio(ours, theirs)  # 2, 3, 4, 1, 1 and 2, 1, 0.5, 3, 2
    assert (found.cpu, found.wall) == (2, 2)
    assert found.low == 1
    assert found.high == 3.5
    assert timing.milliseconds(ours) == 8000


def test_rounds_are_interleaved_and_the_first_does_not_count(timing: ModuleType) -> None:
    order: list[str] = []

    def way(name: str) -> Callable[[], Any]:
        def go() -> Any:
            order.append(name)
            return timing.Cost(len(order), 0)

        return go

    costs = timing.interleaved({"a": way("a"), "b": way("b")}, rounds=2)
    assert order == ["a", "b"] * 3
    assert [cost.cpu for cost in costs["a"]] == [3, 5]
    assert [cost.cpu for cost in costs["b"]] == [4, 6]


def test_a_table_goes_where_the_page_says(
    timing: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = Path("page.md")
    page.write_text("before\n<!-- step -->\nold\n<!-- end of step -->\nafter\n")
    monkeypatch.setattr(timing, "PAGE", page)
    timing.publish("step", timing.table(("a", "b"), [["1", "2"]]))
    assert page.read_text() == (
        "before\n<!-- step -->\n| a | b |\n|---|---|\n| 1 | 2 |\n<!-- end of step -->\nafter\n"
    )
    assert "| 1 | 2 |" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="expected a place for other"):
        timing.publish("other", [])


def test_every_timing_is_on_the_page() -> None:
    text = PAGE.read_text()
    named = {
        name
        for path in (FOLDER / "benchmarks").glob("*.py")
        for name in re.findall(r'publish\("(\w+)"', path.read_text())
    }
    sections = dict(re.findall(r"<!-- (\w+) -->\n(.*?)<!-- end of \1 -->", text, re.DOTALL))
    assert named == set(sections)
    assert all(section.count("|") > 10 for section in sections.values())
    for picture in re.findall(r"\]\((performance/\w+\.png)\)", text):
        assert (PAGE.parent / picture).is_file(), picture
