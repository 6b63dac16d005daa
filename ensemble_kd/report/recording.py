"""The callback that writes ``curves.csv`` while a stage is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from ensemble_kd.report.curves import Point, append_points


class Curves(Callback):
    """Appends what was logged for each epoch to a table, on rank zero.

    Rows are written and closed epoch by epoch, so a crash loses nothing of the epochs before it.
    A value that was not logged anew, such as a validation accuracy between two validations, is not
    written again.

    Args:
        path: the table, shared by all stages of a run.
        stage: name of the stage.
    """

    def __init__(self, path: Path, stage: str) -> None:
        self.path = path
        self.stage = stage
        self._written: dict[str, Tensor] = {}
        self._names: list[str] = []
        self._epoch = 0

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what this epoch logged."""
        self._epoch = trainer.current_epoch
        self._write(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what the module logged at the end of the last epoch, after the callbacks' turn."""
        if self._written:
            self._write(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what the module logged at the end of the last epoch of all."""
        self._write(trainer)

    def state_dict(self) -> dict[str, Any]:
        """The order of the rows, for a checkpoint; it holds the table itself, too."""
        return {"names": self._names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the order of a training that was cut off."""
        self._names = list(state_dict["names"])

    def _write(self, trainer: Trainer) -> None:
        # Reading the metrics may synchronise them, so every rank does it.
        logged = trainer.callback_metrics
        self._names += [name for name in logged if name not in self._names]
        metrics = {name: logged[name] for name in self._names if name in logged}
        news = {name: value for name, value in metrics.items() if self._is_new(name, value)}
        # Holding the tensors keeps their memory from being given to the next epoch's.
        self._written.update(news)
        if trainer.is_global_zero:
            append_points(
                self.path,
                [Point(self.stage, self._epoch, name, float(v)) for name, v in news.items()],
            )

    def _is_new(self, name: str, value: Tensor) -> bool:
        before = self._written.get(name)
        return before is None or before.data_ptr() != value.data_ptr()
