"""What a run and a sweep would leave."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from ensemble_kd.costs import Cost
from ensemble_kd.evaluation import Measured
from ensemble_kd.latency import Latency
from ensemble_kd.predictions import Predictions
from ensemble_kd.report import Results, Trained, compile_results
from ensemble_kd.scorecard import Card
from ensemble_kd.scores import Nearness, Scores

ACCURACIES = {
    "student": 0.936,
    "teacher/0": 0.931,
    "teacher/10": 0.928,
    "teacher/2": 0.933,
    "control/no_teacher": 0.894,
    "ensemble": 0.947,
    "assistant/0": 0.944,
}
PARAMETERS = {"student": 690, "control/no_teacher": 690, "ensemble": 30210, "assistant/0": 1702}


NOTHING = Predictions((), torch.zeros(0), torch.zeros(0), {})


def measured(accuracies: Mapping[str, float]) -> Card:
    """Scores that are easily told apart; every predictor is held against the ensemble."""
    scores = {
        name: Scores(a, 1 - a, (1 - a) / 2, 360, None, a - 0.05, 2 - 2 * a, (a, math.nan))
        for name, a in accuracies.items()
    }
    pairs = {(name, "ensemble"): Nearness(a - 0.1, 1 - a, a) for name, a in accuracies.items()}
    pairs.pop(("ensemble", "ensemble"), None)
    return Card(Measured(scores, pairs, NOTHING), None, {})


def cost(name: str) -> Cost:
    """A cost by which predictors are told apart; one of them cannot be timed."""
    size = PARAMETERS.get(name, 10410)
    if name == "teacher/2":
        return Cost(size, 4 * size, None, None, None)
    return Cost(size, 4 * size, 10 * size, 1.5, Latency(0.5, 0.75))


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
            costs={name: cost(name) for name in accuracies},
            stages=[
                Trained("teacher/0", "ab12", True, 60, 0.0, 10410),
                Trained("student", "cd34", False, 60, 2.5, 690, ("teacher/0",)),
            ],
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
