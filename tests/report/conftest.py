"""What a run and a sweep would leave."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from ensemble_kd.evaluation import Measured, Nearness, Scores
from ensemble_kd.report import Results, Trained, compile_results

ACCURACIES = {
    "student": 0.936,
    "teacher/0": 0.931,
    "teacher/10": 0.928,
    "teacher/2": 0.933,
    "control": 0.894,
    "ensemble": 0.947,
    "assistant/0": 0.944,
}
PARAMETERS = {"student": 690, "control": 690, "ensemble": 30210, "assistant/0": 1702}


def measured(accuracies: Mapping[str, float]) -> Measured:
    """Scores that are easily told apart; every predictor is held against the ensemble."""
    scores = {name: Scores(a, 1 - a, (1 - a) / 2, 360) for name, a in accuracies.items()}
    pairs = {(name, "ensemble"): Nearness(a - 0.1, 1 - a) for name, a in accuracies.items()}
    pairs.pop(("ensemble", "ensemble"), None)
    return Measured(scores, pairs)


@pytest.fixture
def make_results() -> Callable[..., Results]:
    """Results of a run from test accuracies by predictor, and a seed."""

    def make(accuracies: Mapping[str, float] = ACCURACIES, seed: int = 0) -> Results:
        return compile_results(
            seed=seed,
            strategy="assistant",
            data={"name": "digits", "classes": 10},
            val=measured({name: a - 0.01 for name, a in accuracies.items()}),
            test=measured(accuracies),
            parameters={name: PARAMETERS.get(name, 10410) for name in accuracies},
            stages=[Trained("teacher/0", "ab12", True, 60, 0.0, 10410)],
            milliseconds={name: 1.5 for name in accuracies if name != "teacher/2"},
        )

    return make


@pytest.fixture
def results(make_results: Callable[..., Results]) -> Results:
    """Results of a run with every role in it."""
    return make_results()


@pytest.fixture
def make_job(tmp_path: Path) -> Callable[..., Path]:
    """Writes the run folder of a sweep's job; returns the folder of the sweep."""

    def make(name: str, overrides: list[str], results: Mapping[str, Any] | str | None) -> Path:
        folder = tmp_path / "sweep" / name
        (folder / ".hydra").mkdir(parents=True)
        lines = "".join(f"- {override}\n" for override in overrides)
        (folder / ".hydra" / "overrides.yaml").write_text(lines or "[]\n")
        if results is not None:
            text = results if isinstance(results, str) else json.dumps(results)
            (folder / "results.json").write_text(text)
        return tmp_path / "sweep"

    return make
