"""The callback that records curves, in real trainings of a network with one weight."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from ensemble_kd.report import Point, read_points
from ensemble_kd.report.recording import Curves

BATCHES = 3


class Logger(LightningModule):
    """Logs the number of the batch, of the epoch and of the validation, at every usual place."""

    def __init__(self, stop_in_epoch: int | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.validations = 0
        self.stop_in_epoch = stop_in_epoch

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        if self.current_epoch == self.stop_in_epoch and batch_idx == 1:
            raise RuntimeError("stopped")
        self.log("student/mean", float(batch_idx), on_step=False, on_epoch=True)
        self.log("student/constant", 7.0, on_step=False, on_epoch=True)
        return self.weight.square()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.trainer.is_last_batch:
            self.log("student/soft", 10.0 + self.current_epoch, on_step=False, on_epoch=True)

    def on_train_epoch_end(self) -> None:
        self.log("student/late", 20.0 + self.current_epoch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("student/val_accuracy", 0.5 + self.validations / 100)

    def on_validation_epoch_end(self) -> None:
        self.validations += 1

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(module: Logger, callbacks: list[Callback], **settings: Any) -> None:
    loader = DataLoader(TensorDataset(torch.zeros(BATCHES)), batch_size=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = Trainer(
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=callbacks,
            **settings,
        )
        trainer.fit(module, loader, loader)


def logged(path: Path, name: str) -> list[tuple[int, float]]:
    return [(point.epoch, point.value) for point in read_points(path) if point.name == name]


def test_writes_every_value_once_with_its_epoch(tmp_path: Path) -> None:
    path = tmp_path / "curves.csv"
    fit(Logger(), [Curves(path, "assistant/0")], max_epochs=3, num_sanity_val_steps=0)
    assert {point.stage for point in read_points(path)} == {"assistant/0"}
    assert logged(path, "student/mean") == [(0, 1.0), (1, 1.0), (2, 1.0)]
    assert logged(path, "student/constant") == [(0, 7.0), (1, 7.0), (2, 7.0)]
    assert logged(path, "student/soft") == [(0, 10.0), (1, 11.0), (2, 12.0)]
    assert logged(path, "student/late") == [(0, 20.0), (1, 21.0), (2, 22.0)]
    assert logged(path, "student/val_accuracy") == [(0, 0.5), (1, 0.51), (2, 0.52)]
    assert len(path.read_text().splitlines()) == 1 + 5 * 3


def test_does_not_repeat_what_was_not_logged_anew(tmp_path: Path) -> None:
    path = tmp_path / "curves.csv"
    fit(
        Logger(),
        [Curves(path, "student")],
        max_epochs=5,
        check_val_every_n_epoch=2,
        num_sanity_val_steps=0,
    )
    assert logged(path, "student/val_accuracy") == [(1, 0.5), (3, 0.51)]
    assert len(logged(path, "student/mean")) == 5


def test_the_rehearsal_of_the_validation_is_not_recorded(tmp_path: Path) -> None:
    path = tmp_path / "curves.csv"
    fit(Logger(), [Curves(path, "student")], max_epochs=1, num_sanity_val_steps=1)
    assert logged(path, "student/val_accuracy") == [(0, 0.51)]


def test_a_crash_keeps_the_epochs_before_it(tmp_path: Path) -> None:
    path = tmp_path / "curves.csv"
    with pytest.raises(RuntimeError, match="stopped"):
        fit(Logger(stop_in_epoch=2), [Curves(path, "student")], max_epochs=5)
    assert logged(path, "student/soft") == [(0, 10.0), (1, 11.0)]
    assert logged(path, "student/late") == [(0, 20.0), (1, 21.0)]


def test_stages_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "curves.csv"
    for stage in ("teacher/0", "student"):
        fit(Logger(), [Curves(path, stage)], max_epochs=1)
    assert Point("teacher/0", 0, "student/soft", 10.0) in read_points(path)
    assert Point("student", 0, "student/soft", 10.0) in read_points(path)


def test_other_ranks_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "is_global_zero", property(lambda self: False))
    path = tmp_path / "curves.csv"
    fit(Logger(), [Curves(path, "student")], max_epochs=1)
    assert not path.exists()
