"""Progress on a terminal and elsewhere, in real trainings of a network with one weight."""

from __future__ import annotations

import io
import re
import time
import warnings
from typing import Any

import pytest
import torch
from lightning_fabric.utilities import rank_zero_only
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from ensemble_kd.report import progress
from ensemble_kd.report.progress import StageProgress


class Terminal(io.StringIO):
    """A file that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


class Learner(LightningModule):
    """Learns nothing and reports an accuracy."""

    def __init__(self, stops: bool = False, accuracy: float | None = 0.9412) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.stops = stops
        self.accuracy = accuracy

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        if self.stops and self.current_epoch == 1:
            raise RuntimeError("stopped")
        return self.weight.square()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        if self.accuracy is not None:
            self.log("student/val_accuracy", self.accuracy)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(module: Learner, stage: StageProgress) -> None:
    loader = DataLoader(TensorDataset(torch.zeros(5)), batch_size=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = Trainer(
            accelerator="cpu",
            logger=False,
            max_epochs=stage.epochs,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[stage],
        )
        trainer.fit(module, loader, loader)


@pytest.fixture(autouse=True)
def ordinary_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables by which a caller may tell rich to take a file for something else."""
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def test_elsewhere_a_stage_is_one_plain_line() -> None:
    file = io.StringIO()
    fit(Learner(), StageProgress(2, 6, "teacher/1", 3, file))
    assert re.fullmatch(
        r"\[2/6\] teacher/1  3 epochs \.\.\.  val accuracy 0\.941  \d+\.\d s\n", file.getvalue()
    )


def test_the_line_begins_before_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    seen = []

    class Spy(Learner):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            seen.append(file.getvalue())
            return super().training_step(batch, batch_idx)

    fit(Spy(), StageProgress(1, 10, "student", 1, file))
    assert seen[0] == "[ 1/10] student  1 epoch ..."


def test_without_a_validation_accuracy_the_line_has_none() -> None:
    file = io.StringIO()
    fit(Learner(accuracy=None), StageProgress(1, 1, "student", 1, file))
    assert re.fullmatch(r"\[1/1\] student  1 epoch \.\.\.  \d+\.\d s\n", file.getvalue())


def test_a_reused_stage_is_one_line() -> None:
    file = io.StringIO()
    StageProgress(1, 6, "teacher/0", 60, file).reused("1a2b3c4d5e6f")
    assert file.getvalue() == "[1/6] teacher/0  reused (digest 1a2b3c4d)\n"


@pytest.mark.parametrize("file", [io.StringIO(), Terminal()], ids=["plain", "terminal"])
def test_a_stage_that_fails_ends_its_line(file: io.StringIO) -> None:
    with pytest.raises(RuntimeError, match="stopped"):
        fit(Learner(stops=True), StageProgress(1, 2, "teacher/0", 3, file))
    assert file.getvalue().endswith("[1/2] teacher/0  3 epochs ...  stopped in epoch 2\n")


def test_on_a_terminal_a_bar_moves_and_makes_way_for_the_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "INTERVAL", 0.0)
    file = Terminal()
    fit(Learner(), StageProgress(2, 6, "teacher/1", 3, file))
    said = file.getvalue()
    assert "epoch 3/3" in said
    assert "0:00:0" in said
    assert "━" in said
    assert "\x1b[2K" in said  # the bar's line is erased
    assert re.search(r"\[2/6\] teacher/1  3 epochs \.\.\.  val accuracy 0\.941  \S+ s\n$", said)


def test_the_bar_is_not_drawn_for_every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    file = Terminal()
    bar = progress._Bar.on_terminal(file, "[1/1] student", 1000)
    assert bar is not None
    drawn = []
    for done in range(1000):
        now[0] += 0.01
        before = file.tell()
        bar.move(done, "epoch 1/10")
        drawn.append(file.tell() > before)
    bar.stop()
    assert 80 <= sum(drawn) <= 100  # in 10 seconds


def test_other_ranks_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    file = io.StringIO()
    StageProgress(1, 1, "student", 1, file).reused("1a2b3c4d")
    assert file.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "said"), [(3.14, "3.1 s"), (59.94, "59.9 s"), (125.0, "2 min 05 s")]
)
def test_durations(seconds: float, said: str) -> None:
    assert progress._duration(seconds) == said
