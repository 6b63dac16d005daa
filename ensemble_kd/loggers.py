"""Loggers of Lightning for experiment trackers: a run for each stage, and no network by default.

What a tracker would note of the machine by itself (user, host, command line, git, packages) is left
out where it can be; what a run was made with stands in its ``results.json``.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from lightning_fabric.loggers.logger import rank_zero_experiment
from lightning_fabric.utilities import rank_zero_only
from pytorch_lightning.loggers import MLFlowLogger, TensorBoardLogger, WandbLogger

from ensemble_kd.errors import UserError
from ensemble_kd.optional import optional

Mode = Literal["offline", "online"]

UNNOTED: dict[str, Any] = {
    "console": "off",
    "silent": True,
    "disable_code": True,
    "disable_git": True,
    "disable_job_creation": True,
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
}
"""Settings of Weights & Biases without which it notes what is printed, the machine and the code."""


class TensorBoard:
    """Event files for TensorBoard, in a folder for each stage.

    Raises:
        UserError: the package is not installed.
    """

    def __init__(self) -> None:
        optional("tensorboard", "tensorboard", "logger=tensorboard")

    def __call__(self, save_dir: Path, name: str) -> TensorBoardLogger:
        """The logger of a stage.

        Args:
            save_dir: the folder ``logs`` of a run.
            name: of the stage.
        """
        return TensorBoardLogger(save_dir, name, version="", default_hp_metric=False)


class MLflow:
    """A run of MLflow for each stage, in a database of the run folder or on a server.

    Args:
        experiment: its name, which all stages share.
        tracking_uri: of a server; ``mlflow.db`` in the folder ``logs`` unless given.

    Raises:
        UserError: the package is not installed.
    """

    def __init__(self, experiment: str, tracking_uri: str | None = None) -> None:
        # It is read when the package is imported, which would otherwise send usage statistics.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        optional("mlflow", "mlflow", "logger=mlflow")
        for module in () if tracking_uri else ("sqlalchemy", "alembic"):
            optional(module, "mlflow", "logger=mlflow")
        self.experiment = experiment
        self.tracking_uri = tracking_uri

    def __call__(self, save_dir: Path, name: str) -> MLFlowLogger:
        """The logger of a stage, whose run has begun.

        Args:
            save_dir: the folder ``logs`` of a run.
            name: of the stage.

        Raises:
            UserError: there is no such server, or it refuses.
        """
        from mlflow.exceptions import MlflowException

        folder = Path(save_dir).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        own = None if self.tracking_uri else f"sqlite:///{quote(str(folder))}/mlflow.db"
        with _quiet():
            logger = MLFlowLogger(
                self.experiment,
                run_name=name,
                tracking_uri=own or self.tracking_uri,
                artifact_location=(folder / "mlflow").as_uri() if own else None,
                tags={
                    "ensemble_kd.run": run_name(folder),
                    # It fills these in unless they are given.
                    "mlflow.user": "",
                    "mlflow.source.name": "ensemble_kd",
                    "mlflow.source.git.commit": "",
                },
            )
            try:
                _ = logger.experiment
            except MlflowException as refusal:
                raise UserError(f"logger=mlflow: {first_line(refusal)}") from refusal
        return logger


class WeightsAndBiases:
    """A run of Weights & Biases for each stage, in the run folder, or sent to its server.

    Args:
        project: its name, which all stages share.
        mode: ``offline`` writes files, which ``wandb sync`` can send later; ``online`` sends.

    Raises:
        UserError: the package is not installed.
    """

    def __init__(self, project: str, mode: Mode = "offline") -> None:
        # Read when the package is imported: its own failures would otherwise be sent.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        optional("wandb", "wandb", "logger=wandb")
        self.project = project
        self.mode: Mode = mode

    def __call__(self, save_dir: Path, name: str) -> WandbLogger:
        """The logger of a stage, whose run ends with the training.

        Args:
            save_dir: the folder ``logs`` of a run.
            name: of the stage.
        """
        folder = Path(save_dir).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        return _StageRun(folder, name, self.project, self.mode)


class _StageRun(WandbLogger):
    """A run that begins in the process that first logs to it, and ends with the trainer there.

    Lightning's own begins where the logger is made or pickled; of ``trainer=ddp`` that process is
    another one than that which trains, and its run would be left open.

    Args:
        folder: the folder ``logs`` of a run.
        stage: name of the stage.
        project: its name.
        mode: ``offline`` or ``online``.
    """

    def __init__(self, folder: Path, stage: str, project: str, mode: Mode) -> None:
        super().__init__(name=stage, save_dir=folder, project=project)
        self._mode: Mode = mode

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run, which begins when it is first asked for.

        Raises:
            UserError: it cannot begin: online, without a key or without a network.
        """
        import wandb

        if self._experiment is None:
            folder = Path(str(self._save_dir))
            try:
                self._experiment = wandb.init(
                    project=self._project,
                    name=self._name,
                    group=run_name(folder),
                    dir=folder,
                    mode=self._mode,
                    reinit="create_new",
                    settings=wandb.Settings(**UNNOTED),
                )
            except wandb.Error as refusal:
                raise UserError(f"logger=wandb: {first_line(refusal)}") from refusal
            self._experiment.define_metric("trainer/global_step")
            self._experiment.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        return self._experiment

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_experiment": None}

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the run.

        Args:
            status: ``success``, or how else the training ended.
        """
        super().finalize(status)
        if self._experiment is not None:
            self._experiment.finish(exit_code=0 if status == "success" else 1)
            self._experiment = None


def run_name(logs: Path) -> str:
    """What tells a run from others in the same tracker: the last two folders of its path."""
    return "/".join(logs.parent.parts[-2:])


def first_line(failure: Exception) -> str:
    """The first line of what a tracker says, or the name of the failure where it says nothing."""
    return next(iter(str(failure).splitlines()), "") or type(failure).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep off the terminal that a database is made, and a deprecation that is MLflow's own."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic", MLFlowLogger.__module__)]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*`noload`", DeprecationWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
