"""Churn between seeds, from predictions made by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from ensemble_kd.predictions import Predictions, write_predictions
from ensemble_kd.report import Results
from ensemble_kd.report.sweep import read_jobs, summarise
from ensemble_kd.report.sweep_churn import churn

NAMES = ("ant", "bee", "cat")


def keep(
    run: Path,
    index: Sequence[int],
    named: dict[str, Sequence[int]],
    target: Sequence[int] | None = None,
    names: tuple[str, ...] = NAMES,
) -> Path:
    """Predictions of a run: the classes that its predictors name."""
    logits = {
        name: torch.nn.functional.one_hot(torch.tensor(classes), len(names)).float()
        for name, classes in named.items()
    }
    wanted = torch.tensor(target if target is not None else [each % 3 for each in index])
    said = Predictions(names, torch.tensor(index), wanted, logits)
    write_predictions(said, run / "predictions" / "test.safetensors")
    return run


def test_mean_over_pairs_of_what_both_splits_hold(tmp_path: Path) -> None:
    runs = [
        keep(tmp_path / "0", [1, 2, 3, 4], {"student": [0, 1, 2, 0]}),
        keep(tmp_path / "1", [3, 4, 2], {"student": [2, 1, 1]}),  # shares 2, 3, 4: 4 differs
        keep(tmp_path / "2", [1, 9, 4], {"student": [1, 0, 1]}),  # with 0: 1, 4; with 1: 4
    ]
    found = churn(runs, ["student"])["student"]
    assert found is not None
    assert found["mean"] == pytest.approx((1 / 3 + 2 / 2 + 0 / 1) / 3)
    assert found["pairs"] == 3
    assert found["samples"] == pytest.approx((3 + 2 + 1) / 3)


def test_each_predictor_has_its_own(tmp_path: Path) -> None:
    runs = [
        keep(tmp_path / "0", [1, 2], {"student": [0, 1], "control/no_teacher": [0, 0]}),
        keep(tmp_path / "1", [1, 2], {"student": [0, 1], "control/no_teacher": [1, 0]}),
        keep(tmp_path / "2", [1, 2], {"student": [0, 2]}),
    ]
    found = churn(runs, ["student", "control/no_teacher", "peer/0"])
    assert found["student"] == {"mean": pytest.approx(1 / 3), "pairs": 3, "samples": 2}
    assert found["control/no_teacher"] == {"mean": 0.5, "pairs": 1, "samples": 2}
    assert found["peer/0"] is None


def test_places_of_a_sequence_are_told_apart(tmp_path: Path) -> None:
    runs = [
        keep(tmp_path / "0", [5, 5, 5, 2, 2], {"student": [0, 1, 2, 0, 1]}),
        keep(tmp_path / "1", [2, 2, 5, 5, 5], {"student": [0, 0, 0, 1, 1]}),
    ]
    found = churn(runs, ["student"])["student"]
    assert found == {"mean": pytest.approx(2 / 5), "pairs": 1, "samples": 5}


def test_what_cannot_be_compared_is_left_out(tmp_path: Path) -> None:
    kept = keep(tmp_path / "0", [1, 2], {"student": [0, 1]})
    damaged = tmp_path / "damaged"
    (damaged / "predictions").mkdir(parents=True)
    (damaged / "predictions" / "test.safetensors").write_text("half")
    others = {
        "apart": keep(tmp_path / "apart", [3, 4], {"student": [0, 1]}),
        "classes": keep(tmp_path / "classes", [1, 2], {"student": [0, 1]}, names=("a", "b", "c")),
        "targets": keep(tmp_path / "targets", [1, 2], {"student": [0, 1]}, target=[0, 0]),
        "empty": keep(tmp_path / "empty", [1], {"student": [0]}),
        "none": tmp_path / "none",
        "damaged": damaged,
    }
    others.pop("empty")
    for other in others.values():
        assert churn([kept, other], ["student"]) == {"student": None}
    assert churn([], ["student"]) == {"student": None}


def test_sweeps_have_it_by_setting(
    make_job: Callable[..., Path], make_results: Callable[..., Results]
) -> None:
    for seed in range(3):
        folder = make_job(str(seed), [f"seed={seed}"], make_results(seed=seed))
        keep(
            folder / str(seed),
            [1, 2, 3],
            {"student": [seed, 0, 0], "control/no_teacher": [0, seed, seed]},
        )
    found = summarise(read_jobs(folder))["groups"][0]["churn"]
    assert found["student"] == {"mean": pytest.approx(1 / 3), "pairs": 3, "samples": 3}
    assert found["control/no_teacher"] == {"mean": pytest.approx(2 / 3), "pairs": 3, "samples": 3}


def test_runs_that_kept_nothing_have_none(
    make_job: Callable[..., Path], make_results: Callable[..., Results]
) -> None:
    folder = make_job("0", [], make_results())
    assert summarise(read_jobs(folder))["groups"][0]["churn"] == {
        "student": None,
        "control/no_teacher": None,
    }
