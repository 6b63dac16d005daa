"""What the pages count is what their tables hold."""

from __future__ import annotations

import csv
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"


def words(page: str) -> str:
    return " ".join((DOCS / page).read_text().split())


def rows(table: str) -> list[dict[str, str]]:
    with (DOCS / table).open(newline="") as file:
        return list(csv.DictReader(file))


def test_ends_of_runs() -> None:
    found = rows("kills.csv")
    ways = ("moment", "checkpoint", "artefact", "interrupt")
    ends = sum(int(row[way]) for row in found for way in ways)
    continued = sum(int(row["continued"]) for row in found)
    same = sum(row["same"] == "True" for row in found)
    assert ends >= 30
    assert (
        f"{len(found)} cases, ended {ends} times in all, went on from a checkpoint {continued} "
        f"times, and {same} of {len(found)} ended with the same bits"
    ) in words("recovery.md")


def test_wrong_command_lines() -> None:
    found = rows("fuzz.csv")
    success, line, other = (
        sum(int(row[name]) for row in found) for name in ("success", "one_line", "finding")
    )
    assert (
        f"{success + line + other} command lines, of which {success} were right, {line} ended in "
        f"one line, and {other} in anything else"
    ) in words("security.md")
