"""Training a student for some epochs, as a stage of a run does, and what these take."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import CSVLogger
from timing import Cost, now, since
from torch import nn

from ensemble_kd.config import compose, plain
from ensemble_kd.descent import Descent
from ensemble_kd.fitting import make_trainer
from ensemble_kd.module import DistillationModule
from ensemble_kd.objectives import Term
from ensemble_kd.report.progress import StageProgress
from ensemble_kd.report.recording import Curves
from ensemble_kd.schedules import Cosine
from ensemble_kd.strategies import Parallel
from ensemble_kd.teachers import Ensemble
from ensemble_kd.weightings import Uniform


class Timer(Callback):
    """Times every epoch but the first."""

    def __init__(self) -> None:
        self.cost = Cost(0.0, 0.0)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.start = now()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch:
            one = since(self.start)
            self.cost = Cost(self.cost.cpu + one.cpu, self.cost.wall + one.wall)


@functools.cache
def _trainer() -> Mapping[str, Any]:
    node: Mapping[str, Any] = plain(compose([]).trainer, "trainer")
    return node


def epochs(
    student: nn.Module,
    teachers: Ensemble,
    terms: dict[str, Term],
    batches: Any,
    classes: int,
    count: int = 2,
    logging: bool = True,
    fused: bool = True,
) -> Cost:
    """What all epochs but the first take, with the trainer, the callbacks and the loggers of a run.

    Args:
        student: what is trained, with AdamW and a cosine schedule.
        teachers: who are heard, all alike.
        terms: what is descended.
        batches: of training; there is no validation.
        classes: their number.
        count: how many epochs.
        logging: whether curves and a table of metrics are written.
        fused: whether AdamW makes one pass over all parameters, as it does in ``conf/optimizer``.
    """
    descent = Descent(0.01, functools.partial(torch.optim.AdamW, fused=fused), Cosine())
    strategy = Parallel(terms, Uniform())
    module = DistillationModule(student, teachers, strategy, {"default": descent}, classes)
    timer = Timer()
    with tempfile.TemporaryDirectory() as folder, open("/dev/null", "w") as nowhere:
        callbacks: list[Callback] = [timer]
        if logging:
            curves = Curves(Path(folder) / "curves.csv", "student")
            callbacks += [curves, StageProgress(1, 1, "student", count, nowhere)]
        loggers = [CSVLogger(folder)] if logging else []
        trainer = make_trainer(_trainer(), count, callbacks, loggers)
        trainer.fit(module, train_dataloaders=batches)
    return timer.cost
