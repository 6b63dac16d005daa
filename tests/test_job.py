"""Jobs of a sweep: in other processes, when they fail, and on clusters."""

from __future__ import annotations

import importlib.util
import io
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import TerminatedWorkerError

from ensemble_kd import job, sweep_job
from ensemble_kd.config import compose
from ensemble_kd.sweep_job import LAUNCHERS, SweepJob

Command = Callable[..., int]
QUICK = (
    *("epochs=1", "teacher.epochs=1", "controls=[]", "logger=none", "evaluation.robustness=null"),
    *("+trainer.limit_train_batches=2", "report.plots=false", "report.page=false"),
    "report.onnx=false",
)
MEMBERS = "teacher.members=[cnn_tiny]"
OWN = """\
_target_: ensemble_kd.networks.Cnn
inputs: ${data.inputs}
classes: ${data.classes}
widths: [3, 5]
"""


@pytest.fixture
def processes() -> Iterator[None]:
    """Ends the processes that joblib would keep for later."""
    yield
    get_reusable_executor().shutdown(wait=True, kill_workers=True)


def results(folder: str) -> Any:
    return json.loads(Path(folder, "results.json").read_text())


@pytest.mark.slow
@pytest.mark.usefixtures("processes")
def test_jobs_in_two_processes_share_a_teacher_and_end_with_a_report(
    command: Command, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("mine/student").mkdir(parents=True)
    Path("mine/student/own.yaml").write_text(OWN)
    sweep = ("--multirun", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    own = ("--config-dir", "mine", "teacher.members=[own]", "hydra.sweep.dir=sweep")
    assert command(*sweep, *own, *QUICK, "objective.temperature=2,4") == 0
    said = capfd.readouterr()
    assert said.err == ""
    stages = [results(f"sweep/{number}")["stages"] for number in range(2)]
    assert [stage["name"] for stage in stages[0]] == ["teacher/0", "student"]
    assert stages[0][0]["digest"] == stages[1][0]["digest"]
    assert [each[0]["reused"] for each in stages].count(False) == 1
    assert [each[1]["reused"] for each in stages] == [False, False]
    assert stages[0][0]["parameters"] == 3 * 1 * 9 + 3 * 2 + 5 * 3 * 9 + 5 * 2 + 5 * 10 + 10
    assert Path("sweep/sweep.json").is_file()
    before, report = said.out.split("\n\n", 1)
    # Lines of two processes are told apart, and none is torn.
    lines = before.splitlines()
    assert lines
    assert all(line.startswith(("job 0: ", "job 1: ")) for line in lines)
    for number in range(2):
        own_lines = [line for line in lines if line.startswith(f"job {number}: ")]
        assert f"objective.temperature={2 + 2 * number}" in own_lines[0]
        assert sum("[2/2] student  1 epoch ...  val accuracy" in line for line in own_lines) == 1
    assert "objective.temperature=2" in report


def test_a_job_that_fails_is_one_line_and_the_others_are_reported(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    # Without a folder of ones own: the report must look where the jobs were.
    assert command("--multirun", "optimizer.lr=1e30,0.01", MEMBERS, *QUICK) == 2
    said = capsys.readouterr()
    (folder,) = Path("multirun").glob("*/*")
    first, last = said.err.splitlines()
    reason = (folder / "0" / "failure.txt").read_text().strip()
    assert "became nan" in reason
    assert first == f"job 0: error: {reason}"
    assert last == f"error: jobs of {folder} that failed: 0; their failure.txt says why"
    assert results(str(folder / "1"))["seed"] == 0
    assert not (folder / "1" / "failure.txt").exists()
    assert (folder / "sweep.json").is_file()
    assert f"sweep: {folder}" in said.out


def test_a_sweep_that_the_configuration_asks_for_is_checked_as_one(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("sweep/3").mkdir(parents=True)
    Path("sweep/3/results.json").write_text("{}")
    assert command("sweep=seeds", MEMBERS, *QUICK, "hydra.sweep.dir=sweep") == 2
    assert capsys.readouterr().err.startswith(
        "error: sweep: expected a new folder, or that of this"
    )
    assert [path.name for path in Path("sweep").iterdir()] == ["3"]


def test_a_process_that_is_gone_is_one_line(
    command: Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise TerminatedWorkerError("A worker process\nwas killed.")

    monkeypatch.setattr(job, "_through_hydra", killed)
    assert command("--multirun", "seed=0,1", MEMBERS, *QUICK, "hydra.sweep.dir=sweep") == 2
    assert capsys.readouterr().err == (
        "error: a job was lost: A worker process was killed.; the others are reported by "
        "python -m ensemble_kd.report sweep\n"
    )


def test_what_goes_to_another_process_is_small() -> None:
    sent = pickle.dumps(SweepJob())
    assert len(sent) < 200
    assert pickle.loads(sent) == SweepJob()


def test_lines_of_another_process_are_whole_and_have_a_prefix() -> None:
    there = io.StringIO()
    lines = sweep_job._Lines(there, "job 3: ")
    for text in ("one", "", " two\nthree", "\n\nfour\n", "five"):
        lines.write(text)
    assert there.getvalue() == "job 3: one two\njob 3: three\njob 3: \njob 3: four\n"
    lines.close()
    assert there.getvalue().endswith("job 3: four\njob 3: five\n")


@pytest.mark.parametrize("no_plugin_at_all", [False, True])
@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_launcher_that_is_not_installed_is_one_line(
    name: str,
    no_plugin_at_all: bool,
    command: Command,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def find_spec(module: str) -> None:
        if no_plugin_at_all:
            raise ModuleNotFoundError(module)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    assert command("--multirun", f"hydra/launcher={name}", "seed=0,1") == 2
    package = f"hydra-{LAUNCHERS[name]}-launcher"
    assert capsys.readouterr().err == (
        f"error: hydra/launcher={name} needs the package '{package}': "
        "pip install ensemble-kd[launchers]\n"
    )
    assert list(Path().iterdir()) == []


def test_an_unknown_launcher_is_one_line(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--multirun", "hydra/launcher=slrum", "seed=0,1") == 2
    assert capsys.readouterr().err == (
        "error: hydra/launcher must be one of its options, got 'slrum'; did you mean 'slurm'?\n"
    )


def test_the_slurm_launcher_takes_what_a_cluster_needs() -> None:
    config = compose(
        ["hydra/launcher=slurm", "hydra.launcher.partition=short", "hydra.launcher.timeout_min=30"],
        with_hydra=True,
    )
    launcher = config.hydra.launcher
    assert launcher._target_.endswith("submitit_launcher.SlurmLauncher")
    assert (launcher.partition, launcher.timeout_min) == ("short", 30)
    assert launcher.tasks_per_node == 1
    assert launcher.max_num_timeout > 0


def test_a_key_that_the_slurm_launcher_has_not_is_one_line(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    launcher = ("hydra/launcher=slurm", "hydra.launcher.memory=3")
    assert command("--multirun", *launcher, "seed=0,1") == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "hydra.launcher" in said
    assert "memory" in said
