"""The report on a sweep, from job folders made by hand, one of them broken and one stopped."""

from __future__ import annotations

import io
import json
import re
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.text import Text
from omegaconf import OmegaConf

import ensemble_kd
from ensemble_kd.errors import UserError
from ensemble_kd.report import Results, SweepReport, report_sweep, sweep_figure
from ensemble_kd.report.picture import Picture
from ensemble_kd.report.sweep import read_jobs, summarise

MakeJob = Callable[..., Path]
MakeResults = Callable[..., Results]

CONTROL = "control/no_teacher"
GAINS = {"parallel": [0.02, 0.05, 0.035], "mutual": [-0.01, 0.03]}
CONTROLS = [0.90, 0.88, 0.89]


@pytest.fixture(autouse=True)
def pages(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The sweeps whose pages were written; the page itself has tests of its own."""
    written: list[Path] = []
    monkeypatch.setattr("ensemble_kd.report.page.write_sweep_page", written.append)
    return written


@pytest.fixture
def sweep(make_job: MakeJob, make_results: MakeResults) -> Path:
    """Two strategies by three seeds: the last job was stopped, and a tenth left half a file."""
    folder = Path()
    number = 0
    for strategy, gains in GAINS.items():
        for seed, gain in enumerate(gains):
            accuracies = {
                "student": CONTROLS[seed] + gain,
                CONTROL: CONTROLS[seed],
                "ensemble": 0.95,
            }
            overrides = [f"strategy={strategy}", "+data.labelled=100", f"seed={seed}"]
            folder = make_job(str(number), overrides, make_results(accuracies, seed))
            number += 1
    make_job(str(number), ["strategy=mutual", "+data.labelled=100", "seed=2"], None)
    make_job("10", ["strategy=assistant", "+data.labelled=100", "seed=0"], '{"schema": 1, "se')
    return folder


def reported(folder: Path) -> dict[str, Any]:
    report_sweep(folder, io.StringIO())
    found: dict[str, Any] = json.loads((folder / "sweep.json").read_text())
    return found


def dots(figure: Picture) -> list[list[float]]:
    rows = [each for each in figure.axes[0].collections if isinstance(each, PathCollection)]
    return [sorted(np.asarray(row.get_offsets())[:, 0].tolist()) for row in rows]


def words(figure: Picture) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)]


def expect_headings_apart(figure: Picture) -> None:
    figure.png()
    title, note = (text.get_window_extent() for text in figure.texts)
    assert title.x1 < note.x0
    assert note.x1 < figure.bbox.x1


def test_groups_by_what_was_swept_except_the_seed(sweep: Path) -> None:
    found = reported(sweep)
    assert found["schema"] == 2
    assert found["settings"] == ["strategy"]
    assert [group["settings"] for group in found["groups"]] == [
        {"strategy": "parallel"},
        {"strategy": "mutual"},
    ]
    assert [group["label"] for group in found["groups"]] == ["strategy=parallel", "strategy=mutual"]
    assert [group["seeds"] for group in found["groups"]] == [[0, 1, 2], [0, 1]]
    assert [group["n"] for group in found["groups"]] == [3, 2]


@pytest.mark.parametrize("split", ["val", "test"])
def test_means_and_sample_deviations(sweep: Path, split: str) -> None:
    shift = -0.01 if split == "val" else 0.0  # how the results were made
    for group in reported(sweep)["groups"]:
        gains = GAINS[group["settings"]["strategy"]]
        controls = CONTROLS[: len(gains)]
        students = [c + g for c, g in zip(controls, gains, strict=True)]
        for name, values in (("student", students), (CONTROL, controls)):
            found = group["predictors"][name][split]["accuracy"]
            assert found["n"] == len(gains)
            assert found["mean"] == pytest.approx(sum(values) / len(values) + shift)
            assert found["std"] == pytest.approx(statistics.stdev(values))
        assert group["student"][split] == group["predictors"]["student"][split]["accuracy"]
        assert group["gain"][split]["mean"] == pytest.approx(sum(gains) / len(gains))
        assert group["gain"][split]["std"] == pytest.approx(statistics.stdev(gains))
        ensemble = group["predictors"]["ensemble"][split]
        assert ensemble["accuracy"]["std"] == pytest.approx(0.0)
        assert ensemble["nll"]["mean"] == pytest.approx(0.05 - shift)
        assert list(ensemble) == ["accuracy", "macro_f1", "nll", "brier", "ece"]


def test_lists_every_job_and_names_those_without_results(sweep: Path) -> None:
    found = reported(sweep)
    assert [job["folder"] for job in found["jobs"]] == ["0", "1", "2", "3", "4"]
    first = found["jobs"][0]
    assert first["seed"] == 0
    assert first["group"] == "strategy=parallel"
    assert first["settings"] == {"strategy": "parallel", "data.labelled": "100"}
    assert first["student"]["test"] == pytest.approx(0.92)
    assert first["gain"][CONTROL]["test"] == pytest.approx(0.02)
    assert [job["folder"] for job in found["missing"]] == ["5", "10"]
    assert "no results.json" in found["missing"][0]["reason"]
    assert "expected the JSON of a run" in found["missing"][1]["reason"]


def test_a_job_that_failed_says_why(make_job: MakeJob) -> None:
    folder = make_job("0", ["seed=0"], None)
    (folder / "0" / "failure.txt").write_text("the loss term 'soft' became nan\n")
    (job,) = read_jobs(folder)
    assert job.reason == "it failed: the loss term 'soft' became nan"


def test_a_job_without_a_student_is_left_out(make_job: MakeJob, make_results: MakeResults) -> None:
    results = make_results()
    del results["predictors"]["student"]
    (job,) = read_jobs(make_job("0", ["seed=0"], results))
    assert "predictors: expected the key 'student'" in job.reason


def test_a_seed_that_comes_twice_counts_once(make_job: MakeJob, make_results: MakeResults) -> None:
    """A sweep that was run again must not look like one with twice as many seeds."""
    for number, accuracy in enumerate([0.90, 0.91, 0.92]):
        results = make_results({"student": accuracy, CONTROL: 0.9}, seed=number % 2)
        folder = make_job(str(number), [f"seed={number % 2}"], results)
    found = reported(folder)
    assert found["groups"][0]["seeds"] == [1, 0]
    assert found["groups"][0]["student"]["test"]["mean"] == pytest.approx(0.915)
    (repeated,) = found["missing"]
    assert repeated["folder"] == "0"
    assert repeated["reason"] == "job 2 repeats it: the same settings and seed 0"


def test_prints_tables_sentences_and_what_was_left_out(sweep: Path) -> None:
    file = io.StringIO()
    report_sweep(sweep, file)
    said = file.getvalue()
    rows = [line for line in said.splitlines() if line.startswith("strategy=parallel ")]
    cells = [re.split(r"  +", row) for row in rows]
    assert cells[0] == [
        *("strategy=parallel", "3", "92.5 ± 0.5", "89.0 ± 1.0", "95.0 ± 0.0", "+3.5 ± 1.5")
    ]
    assert cells[1][:1] == ["strategy=parallel"]
    assert cells[1][1].startswith("+3.5 [+2.0, +")
    assert cells[1][2:] == ["0.250", "0.500", "+1.32", "INCONCLUSIVE"]
    assert cells[2] == [
        *("strategy=parallel", "92.5 ± 0.5", "87.5 ± 0.5"),
        *("0.075 ± 0.005", "0.1500 ± 0.0100", "3.7 ± 0.3"),
    ]
    assert "left out: job 5: " in said
    assert "left out: job 10: " in said
    assert "INCONCLUSIVE: significance is not called with fewer than 6 seeds, got 3: run" in said
    assert "\x1b" not in said


def test_the_same_sentence_is_said_once_and_many_are_cut_short(
    make_job: MakeJob, make_results: MakeResults
) -> None:
    for number in range(25):
        results = make_results({"student": 0.9 + 0.001 * number, CONTROL: 0.9})
        folder = make_job(str(number), [f"objective.temperature={number}"], results)
    file = io.StringIO()
    summary = report_sweep(folder, file)
    assert summary["between"] is None
    assert file.getvalue().count("significance is not called") == 1
    for number, group in enumerate(summary["groups"]):
        group["against"][CONTROL]["sentence"] = f"sentence {number}"
    file = io.StringIO()
    from ensemble_kd.report.sweep_table import print_sweep

    print_sweep(summary, folder, file)
    assert file.getvalue().count("INCONCLUSIVE: sentence") == 20
    assert "5 more sentences are in sweep.json" in file.getvalue()


def test_draws_a_dot_per_seed_a_bar_at_the_mean_and_the_verdict(sweep: Path) -> None:
    summary = reported(sweep)
    figure = sweep_figure(summary)
    assert (sweep / "sweep.png").read_bytes() == figure.png()
    assert dots(figure) == [
        [pytest.approx(100 * gain) for gain in sorted(gains)] for gains in GAINS.values()
    ]
    said = words(figure)
    assert "strategy=parallel" in said
    assert "+3.5 ± 1.5" in said
    assert said.count("INCONCLUSIVE") == 2
    against = summary["groups"][0]["against"][CONTROL]
    lines = [np.asarray(line.get_xdata()).tolist() for line in figure.axes[0].lines]
    assert [100 * against["low"], 100 * against["high"]] in lines


def test_without_labels_there_is_no_table_of_metrics(
    make_job: MakeJob, make_results: MakeResults
) -> None:
    results: dict[str, Any] = {**make_results()}
    unknown = dict.fromkeys(results["predictors"]["student"]["test"]) | {"n": 0, "recall": []}
    results["predictors"] = {
        name: {**entry, "val": unknown, "test": unknown}
        for name, entry in results["predictors"].items()
    }
    file = io.StringIO()
    report_sweep(make_job("0", ["seed=0"], results), file)
    assert "test accuracy in %" in file.getvalue()
    assert "students on the test split" not in file.getvalue()


def test_seeds_alone_are_one_group(make_job: MakeJob, make_results: MakeResults) -> None:
    folder = Path()
    for seed in range(3):
        folder = make_job(str(seed), [f"seed={seed}"], make_results(seed=seed))
    found = reported(folder)
    assert found["settings"] == []
    assert [(group["label"], group["n"]) for group in found["groups"]] == [("every job", 3)]


def test_one_job_has_no_deviation(make_job: MakeJob, make_results: MakeResults) -> None:
    found = reported(make_job("0", [], make_results()))
    assert found["groups"][0]["student"]["test"] == {"mean": 0.936, "std": None, "n": 1}


def test_jobs_without_control_or_ensemble(make_job: MakeJob, make_results: MakeResults) -> None:
    make_job("0", ["strategy=mutual"], make_results({"student": 0.9}))
    folder = make_job("1", ["strategy=parallel"], make_results({"student": 0.92, "ensemble": 0.9}))
    found = reported(folder)
    assert found["reference"] is None
    assert found["groups"][0]["gain"]["test"] == {"mean": None, "std": None, "n": 0}
    assert found["groups"][0]["against"] == {}
    assert "ensemble" not in found["groups"][0]["predictors"]
    assert dots(sweep_figure(found)) == [[90.0], [92.0]]


def test_many_settings_show_those_best_on_validation(
    make_job: MakeJob, make_results: MakeResults
) -> None:
    folder = Path()
    for number in range(45):
        results = make_results({"student": 0.9, CONTROL: 0.8})
        results["predictors"]["student"]["val"]["accuracy"] = number / 100
        folder = make_job(f"deep/{number}", [f"objective.temperature={number}"], results)
    figure = sweep_figure(summarise(read_jobs(folder)))
    assert any("the 40 of 45 best on validation" in said for said in words(figure))
    expect_headings_apart(figure)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == [f"objective.temperature={number}" for number in range(44, 4, -1)]


def test_an_override_that_only_some_jobs_have_is_a_setting(
    make_job: MakeJob, make_results: MakeResults
) -> None:
    make_job("0", ["strategy=parallel"], make_results())
    folder = make_job("1", ["strategy=parallel", "~controls"], make_results())
    summary = summarise(read_jobs(folder))
    assert [group["label"] for group in summary["groups"]] == ["every job", "controls="]


def test_nothing_to_report_is_one_clear_line(make_job: MakeJob) -> None:
    folder = make_job("0", ["seed=0"], None)
    with pytest.raises(UserError, match="expected results of at least one job, found none; job 0"):
        report_sweep(folder)
    assert not (folder / "sweep.json").exists()


def test_results_of_an_earlier_version_are_said_to_be_such(
    make_job: MakeJob, make_results: MakeResults
) -> None:
    for seed in range(2):
        old = {**make_results(seed=seed), "schema": 1}
        folder = make_job(str(seed), [f"seed={seed}"], old)
    with pytest.raises(UserError, match=r"0/results\.json: expected schema 2, got 1") as caught:
        report_sweep(folder)
    assert "earlier version" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_hydra_callback_reports(
    sweep: Path, capsys: pytest.CaptureFixture[str], pages: list[Path]
) -> None:
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(sweep)}}, "report": {"page": True}})
    SweepReport(margin=1.0).on_multirun_end(config, config_name="config")
    captured = capsys.readouterr()
    assert "strategy=parallel" in captured.out
    assert captured.err == ""
    assert (sweep / "sweep.png").exists()
    assert json.loads((sweep / "sweep.json").read_text())["margin"] == 0.01
    assert pages == [sweep]


def test_hydra_callback_leaves_out_the_page_as_runs_do(sweep: Path, pages: list[Path]) -> None:
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(sweep)}}, "report": {"page": False}})
    SweepReport().on_multirun_end(config)
    assert (sweep / "sweep.json").exists()
    assert pages == []


def test_hydra_callback_never_raises(
    make_job: MakeJob, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_job("0", ["seed=0"], None)
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(folder)}}})
    SweepReport().on_multirun_end(config)
    SweepReport().on_multirun_end(OmegaConf.create({}))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("no report on the sweep: ") for line in lines)


def test_a_run_that_is_no_sweep_does_not_load_scipy() -> None:
    """The callback is made at the start of every run."""
    program = (
        "import sys\n"
        "from ensemble_kd.report import SweepReport\n"
        "SweepReport()\n"
        "heavy = {'torch', 'scipy', 'numpy', 'matplotlib', 'rich'} & set(sys.modules)\n"
        "sys.exit(str(sorted(heavy)) if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(ensemble_kd.__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
