"""`python -m ensemble_kd.search` from end to end, on digits."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from ensemble_kd.config import compose
from ensemble_kd.fitting import Interrupted
from ensemble_kd.report.results import read_results
from ensemble_kd.search.__main__ import main
from ensemble_kd.search.study import Search

QUICK = (
    *("epochs=1", "teacher.epochs=1", "teacher.members=[cnn_tiny]", "controls=[]"),
    *("+trainer.limit_train_batches=2", "report.plots=false", "report.onnx=false", "logger=none"),
    *("report.page=false", "evaluation.robustness=null"),
)


def search(*arguments: str) -> int:
    try:
        return main([*arguments])
    except SystemExit as stop:
        return int(stop.code or 0)


def test_a_search_runs_shares_its_teacher_and_says_what_to_do_next(
    capsys: pytest.CaptureFixture[str],
) -> None:
    axes = ("objective.temperature=interval(1,8)", "weighting=uniform,entropy")
    assert search("heat", *QUICK, "--trials", "2", *axes) == 0
    folder = Path("outputs/search/heat")
    found = json.loads((folder / "search.json").read_text())
    results = [read_results(folder / "trials" / str(n) / "results.json") for n in range(2)]
    for trial, result in zip(found["trials"], results, strict=True):
        assert trial["val_accuracy"] == result["predictors"]["student"]["val"]["accuracy"]
    assert [result["stages"][0]["reused"] for result in results] == [False, True]
    best = found["best"]
    assert best["val_accuracy"] == max(trial["val_accuracy"] for trial in found["trials"])
    chosen = results[best["number"]]["predictors"]["student"]
    assert best["test_accuracy"] == chosen["test"]["accuracy"]
    said = capsys.readouterr().out
    assert "predictor" not in said  # the table of a run, which shows test accuracies
    (command,) = (line for line in said.splitlines() if "--multirun" in line)
    _, _, package, multirun, *overrides = shlex.split(command)
    assert (package, multirun) == ("ensemble_kd", "--multirun")
    *fixed, seeds = overrides
    (swept,) = OverridesParser.create().parse_overrides([seeds])
    assert list(swept.sweep_string_iterator()) == ["1", "2", "3", "4", "5", "6"]
    config = compose(fixed)
    assert config.objective.temperature == float(best["values"]["objective.temperature"])
    assert config.controls == ["no_teacher"]  # a verdict needs it, even if the search did without


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert search(*arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert list(Path().iterdir()) == []
    return said.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["something to search"]),
        (["name"], ["something to search"]),
        (["--trials", "0", "a=1,2"], ["--trials", "'0'"]),
        (["--trials", "x", "a=1,2"], ["--trials", "'x'"]),
        (["--bad"], ["--bad"]),
        (["--config-dir", "nowhere", "a=1,2"], ["--config-dir", "nowhere"]),
        (["--folder", "/proc/search", "select=last,best"], ["--folder", "/proc/search"]),
        (["objective.temprature=interval(1,2)"], ["temprature", "temperature"]),
        (["objective.temperature=interval(-1,2)"], ["temperature must be"]),
        (["select=last,first"], ["select", "first"]),
        (["seed=0,1"], ["seed", "luckiest"]),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    arguments: Sequence[str], words: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, *arguments)
    for word in words:
        assert word in line


@pytest.mark.parametrize("package", ["optuna", "sqlalchemy"])
def test_a_missing_package_is_one_line(
    package: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    line = refused(capsys, "select=last,best")
    assert f"needs the package '{package}': pip install ensemble-kd[search]" in line


def test_ctrl_c_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(_: Search) -> None:
        raise Interrupted("student")

    monkeypatch.setattr(Search, "run", run)
    assert search("select=last,best") == 130
    assert capsys.readouterr().err == (
        "interrupted: the same command goes on where this one stopped\n"
    )


def test_help_shows_the_axes(capsys: pytest.CaptureFixture[str]) -> None:
    assert search("--help") == 0
    said = capsys.readouterr().out
    for word in ("interval(1,8)", "tag(log", "--trials", "--folder", "outputs/search/NAME"):
        assert word in said
