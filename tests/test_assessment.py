"""What a run says of its networks, held against those networks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import ensemble_kd
from ensemble_kd.config import compose
from ensemble_kd.data import Digits, InMemory
from ensemble_kd.opening import open_data
from ensemble_kd.predictions import read_predictions
from ensemble_kd.report.samples import read_samples
from ensemble_kd.types import UNLABELLED

QUICK = ("epochs=2", "teacher.epochs=2", "teacher.members=[cnn_tiny,cnn_tiny]", "report.onnx=false")
BARE = ("report.plots=false", "report.page=false", "logger=none", "hydra.run.dir=run")


def results() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path("run/results.json").read_text())
    return content


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run."""
    folder = tmp_path_factory.mktemp("assessed")
    overrides = [*QUICK, "report.plots=false", "report.table=false", f"paths.store={folder}/store"]
    ensemble_kd.distill(
        [torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)) for _ in range(2)],
        ensemble_kd.networks.Cnn([1, 8, 8], 10, widths=[4]),
        InMemory(Digits(), labelled=100),
        epochs=1,
        overrides=[*overrides, "teacher.gate=false"],
        folder=folder / "run",
    )
    return folder / "run"


def test_kept_predictions_are_what_the_networks_say(run: Path) -> None:
    data = open_data(compose([]), InMemory(Digits(), labelled=100), ())
    said = {
        split: read_predictions(run / "predictions" / f"{split}.safetensors")
        for split in ("val", "test")
    }
    student = ensemble_kd.load(run / "student")
    for split, loader in (("val", data.val_dataloader()), ("test", data.test_dataloader())):
        batches = list(loader)
        with torch.inference_mode():
            expected = torch.cat([student(batch.inputs) for batch in batches])
        torch.testing.assert_close(said[split].logits["student"], expected)
        assert torch.equal(said[split].index, torch.cat([batch.index for batch in batches]))
        assert torch.equal(said[split].target, torch.cat([batch.target for batch in batches]))
        assert said[split].names == tuple("0123456789")


def test_results_are_those_of_the_kept_predictions(run: Path) -> None:
    found = json.loads((run / "results.json").read_text())
    for split in ("val", "test"):
        said = read_predictions(run / "predictions" / f"{split}.safetensors")
        known = said.target != UNLABELLED
        assert list(said.logits) == list(found["predictors"])
        for name, logits in said.logits.items():
            right = (logits.argmax(-1) == said.target)[known].double().mean()
            assert found["predictors"][name][split]["accuracy"] == pytest.approx(float(right))
        same = said.logits["student"].argmax(-1) == said.logits["ensemble"].argmax(-1)
        agreement = found["pairs"]["student|ensemble"][split]["agreement"]
        assert agreement == pytest.approx(float(same.double().mean()))


def test_a_student_that_agrees_is_told_from_one_that_does_not(run: Path) -> None:
    """Worth is of the validation split: it adds up to what the ensemble gains over chance."""
    found = json.loads((run / "results.json").read_text())
    said = read_predictions(run / "predictions" / "val.safetensors")
    counts = said.target[said.target != UNLABELLED].bincount()
    chance = float(counts.max() / counts.sum())
    gained = found["predictors"]["ensemble"]["val"]["accuracy"] - chance
    assert sum(each["shapley"] for each in found["worth"].values()) == pytest.approx(gained)


def test_the_samples_that_are_shown_are_of_the_test_split(run: Path) -> None:
    shown = read_samples(run / "samples.json")
    said = read_predictions(run / "predictions" / "test.safetensors")
    assert 0 < len(shown) <= 12
    assert {each["index"] for each in shown} <= set(said.index.tolist())


def test_predictions_beyond_the_limit_are_not_kept_and_a_line_says_so(
    command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(*QUICK, *BARE, "evaluation.keep=0.01", "evaluation.robustness=null") == 0
    assert "evaluation.keep allows 0 MB" in capsys.readouterr().err
    assert not Path("run/predictions").exists()
    assert not Path("run/samples.json").exists()
    assert results()["robustness"] == []
    assert results()["worth"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("evaluation.keep=-1", "keep must be >= 0 megabytes, got -1"),
        ("evaluation.robustness.severities=[6]", "severities must be of 1 to 5, got 6"),
        ("evaluation.robustness.samples=0", "samples must be >= 1, got 0"),
        ("evaluation.bins=0", "bins must be >= 1, got 0"),
    ],
)
def test_a_wrong_setting_is_one_line_before_anything_is_done(
    command: Callable[..., int], capsys: pytest.CaptureFixture[str], setting: str, message: str
) -> None:
    assert command(*QUICK, *BARE, setting) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: evaluation")
    assert message in line
    assert not Path("run").exists()
    assert not Path("outputs").exists()
