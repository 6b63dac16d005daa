"""The report on a sweep, from job folders made by hand, one of them broken and one stopped."""

from __future__ import annotations

import io
import json
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.text import Text
from omegaconf import OmegaConf

from ensemble_kd.errors import UserError
from ensemble_kd.report import Results, SweepReport, report_sweep, sweep_figure
from ensemble_kd.report.sweep import read_jobs, summarise

MakeJob = Callable[..., Path]
MakeResults = Callable[..., Results]

GAINS = {"parallel": [0.02, 0.05, 0.035], "mutual": [-0.01, 0.03]}
CONTROLS = [0.90, 0.88, 0.89]


@pytest.fixture
def sweep(make_job: MakeJob, make_results: MakeResults) -> Path:
    """Two strategies by three seeds: the last job was stopped, and a tenth left half a file."""
    folder = Path()
    number = 0
    for strategy, gains in GAINS.items():
        for seed, gain in enumerate(gains):
            accuracies = {
                "student": CONTROLS[seed] + gain,
                "control": CONTROLS[seed],
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


def test_groups_by_what_was_swept_except_the_seed(sweep: Path) -> None:
    found = reported(sweep)
    assert found["schema"] == 1
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
        for name, values in (("student", students), ("control", controls)):
            found = group[name][split]
            assert found["n"] == len(gains)
            assert found["mean"] == pytest.approx(sum(values) / len(values) + shift)
            assert found["std"] == pytest.approx(statistics.stdev(values))
        assert group["gain"][split]["mean"] == pytest.approx(sum(gains) / len(gains))
        assert group["gain"][split]["std"] == pytest.approx(statistics.stdev(gains))
        assert group["ensemble"][split]["std"] == pytest.approx(0.0)


def test_lists_every_job_and_names_those_without_results(sweep: Path) -> None:
    found = reported(sweep)
    assert [job["folder"] for job in found["jobs"]] == ["0", "1", "2", "3", "4"]
    first = found["jobs"][0]
    assert first["seed"] == 0
    assert first["settings"] == {"strategy": "parallel", "data.labelled": "100"}
    assert first["student"]["test"] == pytest.approx(0.92)
    assert first["gain"]["test"] == pytest.approx(0.02)
    assert [job["folder"] for job in found["missing"]] == ["5", "10"]
    assert "no results.json" in found["missing"][0]["reason"]
    assert "expected the JSON of a run" in found["missing"][1]["reason"]


def test_prints_a_table_and_what_was_left_out(sweep: Path) -> None:
    file = io.StringIO()
    report_sweep(sweep, file)
    said = file.getvalue()
    row = next(line for line in said.splitlines() if line.startswith("strategy=parallel"))
    cells = ["strategy=parallel", "3", "92.5 ± 0.5", "89.0 ± 1.0", "95.0 ± 0.0", "+3.5 ± 1.5"]
    assert re.split(r"  +", row) == cells
    assert "left out: job 5: " in said
    assert "left out: job 10: " in said
    assert "\x1b" not in said


def test_draws_a_dot_per_seed_and_a_bar_at_the_mean(sweep: Path) -> None:
    figure = sweep_figure(reported(sweep))
    assert (sweep / "sweep.png").read_bytes() == figure.png()
    axes = figure.axes[0]
    dots = [sorted(np.asarray(row.get_offsets())[:, 0]) for row in axes.collections]
    assert dots == [
        [pytest.approx(100 * gain) for gain in sorted(gains)] for gains in GAINS.values()
    ]
    said = [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)]
    assert "strategy=parallel" in said
    assert "+3.5 ± 1.5" in said


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
    assert found["groups"][0]["gain"]["test"] == {"mean": None, "std": None, "n": 0}
    assert found["groups"][0]["ensemble"]["test"]["n"] == 0
    figure = sweep_figure(found)
    dots = [np.asarray(row.get_offsets())[0, 0] for row in figure.axes[0].collections]
    assert dots == [90.0, 92.0]


def test_many_settings_show_those_best_on_validation(
    make_job: MakeJob, make_results: MakeResults
) -> None:
    folder = Path()
    for number in range(45):
        results = make_results({"student": 0.9, "control": 0.8})
        results["predictors"]["student"]["val"]["accuracy"] = number / 100
        folder = make_job(f"deep/{number}", [f"objective.temperature={number}"], results)
    figure = sweep_figure(reported(folder))
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == [f"objective.temperature={number}" for number in range(44, 4, -1)]


def test_an_override_that_only_some_jobs_have_is_a_setting(
    make_job: MakeJob, make_results: MakeResults
) -> None:
    make_job("0", ["strategy=parallel"], make_results())
    folder = make_job("1", ["strategy=parallel", "~control"], make_results())
    summary = summarise(read_jobs(folder))
    assert [group["label"] for group in summary["groups"]] == ["every job", "control="]


def test_nothing_to_report_is_one_clear_line(make_job: MakeJob) -> None:
    folder = make_job("0", ["seed=0"], None)
    with pytest.raises(UserError, match="expected results of at least one job"):
        report_sweep(folder)
    assert not (folder / "sweep.json").exists()


def test_hydra_callback_reports(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(sweep)}}})
    SweepReport().on_multirun_end(config, config_name="config")
    captured = capsys.readouterr()
    assert "strategy=parallel" in captured.out
    assert captured.err == ""
    assert (sweep / "sweep.png").exists()


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
