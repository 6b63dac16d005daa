"""The benchmark of scaling: its arithmetic, its runs, and the page that it writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from ensemble_kd.config import compose

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture
def scaling(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("benchmarks/scaling.py")


def test_the_page_is_that_of_the_figures(scaling: ModuleType) -> None:
    assert (DOCS / "scaling.md").read_text() == scaling.page(scaling.rows()), (
        "docs/scaling.md is not current: run python benchmarks/scaling.py report"
    )
    assert {row.part for row in scaling.rows()} == set(scaling.PARTS)


def test_figures_survive_their_file(
    scaling: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scaling, "RAW", tmp_path / "scaling.csv")
    one = scaling.Row("imagenet", "a: total", "seconds", 2.5, None)
    two = scaling.Row("ranks", "small", "throughput", None, 1.25)
    scaling.write([one, two])
    assert scaling.rows() == [two, one]  # part by part


def test_ratios_of_forecast_and_measured(scaling: ModuleType) -> None:
    pairs = {"teacher/0": (1.0, 2.0), "teacher/1": (3.0, 2.0), "teacher/2": (2.0, 2.0)}
    found = [scaling.Row("cells", f"N=3, {part}", "seconds", *pair) for part, pair in pairs.items()]
    lines = scaling.of_cells(found)
    assert lines[2:] == ["| seconds of teacher | 3 | 1.00 | 0.50 to 1.50 | 0.50 | N=3, teacher/0 |"]


def test_rounds_become_medians_and_largest_differences(scaling: ModuleType) -> None:
    figures = {
        "throughput": [1.0, 1.5, 9.0],
        "with_start": [0.5, 0.25, 0.3],
        "difference": [1e-7, 3e-7, 2e-7],
        "merged": [0.0, 0.0, 0.0],
    }
    found = [
        scaling.Row("ranks", "small", name, None, value)
        for name, values in figures.items()
        for value in values
    ]
    assert scaling.of_ranks(found)[2:] == ["| small | 3 | 1.50 | 0.30 | 3.0e-07 | 0.0e+00 |"]


def test_weights_are_compared_tensor_by_tensor(scaling: ModuleType) -> None:
    difference = scaling.scaling_ranks.difference
    assert difference(torch.tensor([1.0, -4.0]), torch.tensor([1.5, -4.0])) == 0.125
    assert difference(torch.tensor(3), torch.tensor(3)) == 0
    assert difference(torch.tensor(3), torch.tensor(4)) == 1


def test_all_runs_can_be_composed(scaling: ModuleType) -> None:
    for cell in scaling.scaling_cells.CELLS:
        config = compose(scaling.scaling_cells.overrides(cell, Path("here")))
        assert len(config.teacher.members) == cell.teachers
    for own in scaling.scaling_ranks.CASES.values():
        compose([*scaling.scaling_ranks.COMMON, *own])
    for own in scaling.KEPT.values():
        compose([*scaling.LARGE, *own])
