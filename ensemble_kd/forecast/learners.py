"""What it takes to train the learner of a stage, measured through Lightning as a run does it."""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from pytorch_lightning import Callback
from pytorch_lightning.loggers import CSVLogger
from torch import nn

from ensemble_kd.artefact import write_artefact
from ensemble_kd.forecast.samples import Few, Turns, of_size
from ensemble_kd.forecast.spans import NOTHING, Line, Span, Timing, span
from ensemble_kd.forecast.stopwatch import Clock, Stopwatch
from ensemble_kd.rehearsal import acquaint
from ensemble_kd.report.progress import StageProgress
from ensemble_kd.report.recording import Curves
from ensemble_kd.stage import Stage
from ensemble_kd.teachers import Ensemble, Frozen
from ensemble_kd.training import assemble, frozen, train
from ensemble_kd.types import Batch, Output, Progress

EPOCHS = 3
"""Of a measured training: the first warms up, and the last is for memory."""

HERE = {
    "devices": 1,
    "num_nodes": 1,
    "strategy": "auto",
    "accumulate_grad_batches": 1,
    "limit_train_batches": None,
    "limit_val_batches": None,
    "max_steps": -1,
    "check_val_every_n_epoch": 1,
    "num_sanity_val_steps": 0,
    "logger": None,
}
"""What the trainer of a measured training is told, where its node says otherwise."""


class Learned(NamedTuple):
    """What a learner takes; see ``Work``."""

    step: Timing
    validation: Timing
    epoch: Span
    start: Span
    weights: int
    buffers: int
    gradients: int
    pieces: int
    state: int
    working: Line


class Answering(Ensemble):
    """Teachers that say of batches of some sizes what they said of the first one.

    Args:
        teachers: the frozen networks.
        batches: of different sizes.
    """

    def __init__(self, teachers: Sequence[Frozen], batches: Sequence[Batch]) -> None:
        super().__init__(teachers)
        asked = super().forward
        self._said = {len(each.index): asked(each, Progress(0, 0, 0.0)) for each in batches}

    def forward(self, batch: Batch, progress: Progress) -> tuple[Output, ...]:
        """What was said of a batch of this size; of another size, what is said now."""
        said = self._said.get(len(batch.index))
        if said is None:
            return super().forward(batch, progress)
        return tuple(_on(batch, each) for each in said)


def learned(
    stage: Stage,
    teachers: Sequence[nn.Module],
    batch: Batch,
    held_out: Batch,
    classes: int,
    sizes: Sequence[int],
    rounds: int,
    allow: Sequence[str] = (),
    clock: Clock = time.perf_counter,
) -> Learned:
    """Train the learner of a stage for a few batches, whose teachers take no time.

    Through ``training.train``, with the callbacks and the table of metrics of a run. Networks that
    learn run as they are, even where they would be compiled.

    Args:
        stage: whose learner; its own weights are new.
        teachers: networks that teach it, whose answers have the right shapes.
        batch: of its training data.
        held_out: of its validation data.
        classes: number of classes.
        sizes: of the batches that take turns, one or two.
        rounds: batches of each size in an epoch, at least 2.
        allow: packages beside this project's that nodes may name.
        clock: in seconds.
    """
    batches = [of_size(batch, size) for size in sizes]
    trainer = {**stage.trainer, **{k: v for k, v in HERE.items() if k in stage.trainer}}
    short = replace(
        stage, epochs=EPOCHS, trainer=trainer, select="last", compiled=False, ensemble=None
    )
    begun = clock()
    learner = assemble(short, allow)
    preparing = clock() - begun
    ensemble = Answering(frozen(learner.strategy, teachers), batches)
    begun = clock()
    acquaint(short, learner, ensemble, held_out)
    preparing += clock() - begun
    data = Few(
        Turns(batches, rounds), Turns([of_size(held_out, size) for size in sizes], max(2, rounds))
    )
    watch = Stopwatch(len(sizes), clock)
    with tempfile.TemporaryDirectory() as folder:
        progress = StageProgress(1, 1, stage.name, EPOCHS, io.StringIO())
        callbacks: list[Callback] = [watch, Curves(Path(folder) / "curves.csv", stage.name)]
        logger = CSVLogger(folder)
        begun = clock()
        train(short, learner, ensemble, data, classes, [*callbacks, progress], [logger], allow)
        delivered = Path(folder) / "artefact"
        delivered.mkdir()
        write_artefact(delivered, learner.deliverable(), None, {}, learner.companions())
        taken = clock() - begun
    step = Timing.through(watch.steps)
    cold = max(0.0, watch.first - step.middle.at(min(sizes)))
    start = max(0.0, preparing + taken - watch.spent + cold)
    return Learned(
        step,
        Timing.through(watch.validations),
        span([max(0.0, each) for each in watch.epochs]) if watch.epochs else NOTHING,
        Span(start, start, start),
        watch.weights,
        watch.buffers,
        watch.gradients,
        watch.pieces,
        watch.state,
        line(watch.most),
    )


def line(found: Mapping[int, float]) -> Line:
    """The line through figures of one or two sizes of batches."""
    small, large = min(found), max(found)
    if small == large:
        return Line(0.0, found[large] / large)
    return Line.through((small, found[small]), (large, found[large]))


def _on(batch: Batch, said: Output) -> Output:
    """An answer where the batch is."""
    device = batch.index.device
    if said.logits.device == device:
        return said
    features = {name: each.to(device) for name, each in said.features.items()}
    groups = None if said.groups is None else said.groups.to(device)
    return Output(said.logits.to(device), features, groups)
