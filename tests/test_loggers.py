"""Experiment trackers: what lands in the run folder, and what does not."""

from __future__ import annotations

import os
import re
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pytorch_lightning.loggers import TensorBoardLogger

from ensemble_kd import loggers
from ensemble_kd.config import compose, plain
from ensemble_kd.engine import Engine
from ensemble_kd.errors import UserError
from ensemble_kd.plan import make_plan
from ensemble_kd.report.curves import read_points
from ensemble_kd.store import Store

QUICK = (
    *("epochs=2", "teacher.epochs=1", "teacher.members=[cnn_tiny]", "controls=[]"),
    "+trainer.limit_train_batches=2",
)
SECRET = "canary" * 6 + "0123"  # as long as a key of W&B
PACKAGES = {
    "tensorboard": ("tensorboard",),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),
    "wandb": ("wandb",),
}
Command = Callable[..., int]


@pytest.fixture(autouse=True)
def environment(tmp_path: Path) -> Iterator[None]:
    """Secrets around a run, and folders of their own for what trackers keep beside it."""
    before = dict(os.environ)
    os.environ |= {
        "WANDB_API_KEY": SECRET,
        "MLFLOW_TRACKING_TOKEN": SECRET,
        "SOME_TOKEN": SECRET,
        "WANDB_CACHE_DIR": str(tmp_path / "cache"),
        "WANDB_CONFIG_DIR": str(tmp_path / "config"),
    }
    yield
    os.environ.clear()
    os.environ.update(before)


def trained(logger: str) -> list[tuple[str, int, str, float]]:
    """Train a teacher and a student; what their curves say of each epoch."""
    config = compose([*QUICK, f"logger={logger}"])
    engine = Engine(make_plan(config), Store(Path("store")), Path("run"), plain(config.logger, ""))
    folders = {name: product.artefact.folder for name, product in engine.products().items()}
    assert list(folders) == ["teacher/0", "student"]
    return [
        (name, point.epoch, point.name, point.value)
        for name, folder in folders.items()
        for point in read_points(folder / "curves.csv")
    ]


def written() -> dict[str, bytes]:
    files = (path for path in Path("run/logs").rglob("*") if path.is_file())
    return {path.relative_to("run/logs").as_posix(): path.read_bytes() for path in files}


def test_mlflow_keeps_a_run_for_each_stage_in_one_database() -> None:
    expected = trained("mlflow")
    assert list(written()) == ["mlflow.db"]
    assert SECRET.encode() not in written()["mlflow.db"]
    database = sqlite3.connect("run/logs/mlflow.db")
    runs = dict(database.execute("select run_uuid, name from runs"))
    assert sorted(runs.values()) == ["student", "teacher/0"]
    assert database.execute("select distinct status from runs").fetchall() == [("FINISHED",)]
    steps = {"teacher/0": [1], "student": [1, 3]}  # the last step of each epoch of two batches
    logged = database.execute("select run_uuid, step, key, value from metrics where key != 'epoch'")
    found = [(runs[uuid], steps[runs[uuid]].index(step), *rest) for uuid, step, *rest in logged]
    assert sorted(found) == [(*rest, pytest.approx(value)) for *rest, value in sorted(expected)]
    assert len(found) > 3
    tags = dict(database.execute("select key, value from tags"))
    database.close()
    assert tags.pop("mlflow.runName") in steps
    assert tags == {
        "ensemble_kd.run": f"{Path.cwd().name}/run",
        "mlflow.source.name": "ensemble_kd",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": "",
        "mlflow.user": "",
    }


@pytest.mark.slow
def test_wandb_keeps_a_run_for_each_stage_offline_and_notes_nothing_of_the_machine() -> None:
    import wandb

    try:
        expected = trained("wandb")
        files = written()
    finally:
        wandb.teardown()
    # Before the process ends, each run has: the next stage is to have its own.
    logs = [content for name, content in files.items() if name.endswith("/logs/debug.log")]
    assert [b"finishing run" in content for content in logs] == [True, True]
    binary = {name: content for name, content in files.items() if name.endswith(".wandb")}
    assert len(binary) == 2
    assert all("/offline-run-" in name for name in binary)
    # A metric of either begins with student/; the teacher is named in one of them alone.
    of = {b"teacher/0" in content: content for content in binary.values()}
    assert {stage for stage, *_ in expected} == {"teacher/0", "student"}
    for stage, _, metric, value in expected:
        content = of[stage == "teacher/0"]
        assert metric.encode() in content
        numbers = [float(text) for text in re.findall(rb"\d+\.\d+(?:e-\d+)?", content)]
        assert any(number == pytest.approx(value) for number in numbers)
    beside = {Path(name).name for name in files if name not in binary}
    assert beside <= {"debug.log", "debug-internal.log", "debug-core.log"}
    host = os.uname().nodename
    for name, content in files.items():
        assert SECRET.encode() not in content, name
        if len(host) > 4:
            assert host.encode() not in content, name
    assert "WANDB_MODE" not in os.environ


@pytest.mark.parametrize(
    ("logger", "package"), [(name, package) for name in PACKAGES for package in PACKAGES[name]]
)
def test_a_missing_package_is_one_line_before_anything_is_written(
    logger: str,
    package: str,
    command: Command,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert command(*QUICK, f"logger={logger}") == 2
    assert capsys.readouterr().err == (
        f"error: logger={logger} needs the package '{package}': pip install ensemble-kd[{logger}]\n"
    )
    assert list(Path().iterdir()) == []


def test_a_server_needs_no_database_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    assert loggers.MLflow("mine", "http://127.0.0.1:5000").tracking_uri == "http://127.0.0.1:5000"


def test_a_server_that_is_not_there_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError, match=r"^logger=mlflow: .*127\.0\.0\.1") as refusal:
        loggers.MLflow("mine", "http://127.0.0.1:9")(Path("run/logs"), "student")
    assert "\n" not in str(refusal.value)


def test_wandb_without_a_network_says_so_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    def init(**arguments: object) -> None:
        assert arguments["mode"] == "online"
        raise wandb.errors.UsageError("no API key\nrun wandb login")

    monkeypatch.setattr(wandb, "init", init)
    logger = loggers.WeightsAndBiases("mine", "online")(Path("run/logs"), "student")
    with pytest.raises(UserError, match=r"^logger=wandb: no API key$"):
        _ = logger.experiment


def test_a_mode_that_wandb_has_not_is_one_line(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("logger=wandb", "logger.mode=dryrun") == 2
    assert capsys.readouterr().err == (
        "error: logger.mode: expected one of 'offline', 'online', got 'dryrun'\n"
    )


def test_tensorboard_gets_the_folder_of_the_stage() -> None:
    logger = loggers.TensorBoard()(Path("run/logs"), "teacher/0")
    assert isinstance(logger, TensorBoardLogger)
    assert Path(logger.log_dir) == Path("run/logs/teacher/0")


@pytest.mark.parametrize("logs", ["a b/é?#%/run/logs"])
def test_a_database_may_lie_in_any_folder(logs: str) -> None:
    logger = loggers.MLflow("mine")(Path(logs), "student")
    logger.log_metrics({"loss": 0.5}, step=1)
    logger.finalize("failed")
    (found,) = Path().rglob("mlflow.db")
    assert found == Path(logs) / "mlflow.db"
    database = sqlite3.connect(found)
    assert database.execute("select name, status from runs").fetchall() == [("student", "FAILED")]
    database.close()
