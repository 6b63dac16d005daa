"""``python -m ensemble_kd.report``."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import ensemble_kd
from ensemble_kd.report import Results
from ensemble_kd.report.__main__ import main

MakeJob = Callable[..., Path]
MakeResults = Callable[..., Results]


@pytest.fixture(autouse=True)
def pages(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Path]]:
    """Which pages were written; they have tests of their own."""
    written: list[tuple[str, Path]] = []

    def write(kind: str) -> Callable[[Path], Path]:
        def note(folder: Path) -> Path:
            written.append((kind, folder))
            return folder / "report.html"

        return note

    for kind in ("run", "sweep"):
        monkeypatch.setattr(f"ensemble_kd.report.page.write_{kind}_page", write(kind))
    return written


@pytest.fixture
def sweep(make_job: MakeJob, make_results: MakeResults) -> Path:
    """Six seeds, and one that was stopped."""
    folder = Path()
    for seed in range(6):
        folder = make_job(str(seed), [f"seed={seed}"], make_results(seed=seed))
    make_job("6", ["seed=6"], None)
    return folder


def test_reports_on_a_sweep(
    sweep: Path, pages: list[tuple[str, Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(sweep)]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "HELPS: +4.2 points of accuracy over control/no_teacher on 6 seeds" in said.out
    assert "left out: job 6: it failed, was stopped or is still running" in said.out
    assert (sweep / "sweep.png").exists()
    assert pages == [("sweep", sweep)]


def test_passes_on_what_was_asked_for(sweep: Path) -> None:
    options = ["--metric", "ece", "--margin", "0.25", "--against", "ensemble"]
    assert main([str(sweep), *options]) == 0
    found = json.loads((sweep / "sweep.json").read_text())
    assert found["metric"]["name"] == "ece"
    assert found["margin"] == 0.0025
    assert found["reference"] == "ensemble"
    assert found["groups"][0]["against"]["ensemble"]["verdict"] == "DOES NOT HELP"


def test_the_same_sweep_gives_the_same_files(sweep: Path) -> None:
    assert main([str(sweep)]) == 0
    before = {name: (sweep / name).read_bytes() for name in ("sweep.json", "sweep.png")}
    assert main([str(sweep)]) == 0
    assert before == {name: (sweep / name).read_bytes() for name in before}


def test_makes_the_page_of_a_run_anew(
    sweep: Path, pages: list[tuple[str, Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(sweep / "0")]) == 0
    assert pages == [("run", sweep / "0")]
    assert capsys.readouterr().out == f"{sweep / '0' / 'report.html'}\n"
    assert not (sweep / "0" / "sweep.json").exists()


@pytest.mark.parametrize(
    ("folder", "options", "message"),
    [
        ("nowhere", [], "expected the folder of a sweep or of a run, found no folder"),
        ("0/results.json", [], "expected the folder of a sweep or of a run, found no folder"),
        ("6", [], "expected a run that is done, found no results.json"),
        ("0/.hydra", [], "found neither results.json nor folders of jobs"),
        ("0", ["--margin", "1"], "--margin: expected the folder of a sweep, got that of a run"),
        ("0", ["--against", "x"], "--against: expected the folder of a sweep"),
        (".", ["--margin", "0"], "margin: expected a number above 0, got 0"),
        (".", ["--margin", "much"], "argument --margin: invalid float value: 'much'"),
        (".", ["--metric", "nil"], "metric: there is no 'nil'; did you mean 'nll'"),
        (".", ["--against", "control"], "against: no job has the predictor 'control'; did you"),
        (".", ["--nothing"], "unrecognized arguments: --nothing"),
    ],
)
def test_mistakes_are_one_line_and_status_two(
    sweep: Path,
    folder: str,
    options: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = sorted(sweep.rglob("*"))
    try:
        status = main([str(sweep / folder), *options])
    except SystemExit as stop:
        status = int(stop.code or 0)
    assert status == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert message in said
    assert said.count("\n") == 1
    assert sorted(sweep.rglob("*")) == before


def test_results_that_cannot_be_read_are_one_line(
    make_job: MakeJob, make_results: MakeResults, capsys: pytest.CaptureFixture[str]
) -> None:
    make_job("0", ["seed=0"], '{"schema": 2, "se')
    folder = make_job("1", ["seed=1"], {**make_results(), "schema": 1})
    assert main([str(folder)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "job 0: " in said
    assert "expected the JSON of a run" in said
    (folder / "0" / "results.json").unlink()
    assert main([str(folder)]) == 2
    assert "no results.json" in capsys.readouterr().err


def test_is_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ensemble_kd.report", "--help"],
        cwd=Path(ensemble_kd.__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert "--margin" in done.stdout
    assert done.stderr == ""
