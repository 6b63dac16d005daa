"""The callback that writes checkpoints, and takes up what one of them holds."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning import Callback, LightningModule, Trainer

from ensemble_kd.checkpoint.files import Checkpoints, Written
from ensemble_kd.checkpoint.loops import settle
from ensemble_kd.data.continuing import generators, read, skip
from ensemble_kd.errors import UserError
from ensemble_kd.files import overwrite
from ensemble_kd.module import DistillationModule
from ensemble_kd.streams import streams, take_up

OWN = "ensemble_kd"
"""The key of what Lightning knows nothing of."""

SPARE = 1.0
"""Seconds of training between two checkpoints at ends of epochs, at least: one costs milliseconds,
and so do the epochs of a small stage."""


class Checkpointing(Callback):
    """Writes a checkpoint after each epoch, and within epochs if asked to.

    What is written is all that a training depends on: Lightning's own (weights, optimisers,
    schedulers, the scaler of gradients, the state of callbacks, counts), the random streams of each
    process, the sums that become the means of the epoch, and the curves so far. Frozen teachers
    and kept answers are not among it: they are found again by their digests.

    A checkpoint is made before the first batch of an epoch or before a batch that begins an
    optimiser step, when every hook of what came before has been called. Batches need not be read
    again to get there, where their order is computed from seed, epoch and place, as in all data of
    this package. Of a dataloader of the user's own, the first batches of the epoch are read and
    thrown away, after its generators, the global ones and those that it holds, were put back to
    where they stood when the epoch began: this gives the same batches, unless it keeps its worker
    processes from epoch to epoch, draws from generators that nobody can see, or varies samples at
    random of which only those with labels are wanted.

    It must be the last of a trainer's callbacks, so that it sees what the others have done.

    Args:
        checkpoints: where they lie.
        curves: the table of the stage's curves.
        every_n_steps: optimiser steps, each of so many batches as are accumulated, from one
            checkpoint to the next within an epoch; None for none within epochs.
    """

    def __init__(
        self, checkpoints: Checkpoints, curves: Path, every_n_steps: int | None = None
    ) -> None:
        self.checkpoints = checkpoints
        self.curves = curves
        self.every_n_steps = every_n_steps
        self.before = 0.0
        self._loaded: dict[str, Any] | None = None
        self._pending: dict[str, Any] | None = None
        self._began: dict[str, Any] = {}
        self._batch = 0
        self._stepped = 0
        self._started = self._written = time.monotonic()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Have Lightning write checkpoints as this package wants them."""
        trainer.strategy.checkpoint_io = Written(self.checkpoints)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the trainer as it was."""
        trainer.strategy.checkpoint_io = TorchCheckpointIO()

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add what Lightning does not know, and say exactly where the training stands."""
        settle(checkpoint["loops"]["fit_loop"], trainer.current_epoch, self._batch)
        own = {
            "now": streams(),
            "began": self._began,
            "read": read(trainer.train_dataloader),
            "running": cast(DistillationModule, pl_module).running(),
        }
        checkpoint[OWN] = {
            "batch": self._batch,
            "ranks": _gathered(own, trainer.world_size),
            "curves": self.curves.read_text() if self.curves.exists() else "",
            "seconds": self.before + time.monotonic() - self._started,
        }

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Put the curves back; the rest waits until everything is in its place.

        Raises:
            UserError: it was written by another number of processes, or the disk is full.
        """
        self._loaded = checkpoint[OWN]
        counts = checkpoint["loops"]["fit_loop"]["epoch_loop.state_dict"]
        self._stepped = counts["_batches_that_stepped"]
        self.before = self._loaded["seconds"]
        written = len(self._loaded["ranks"])
        if written != trainer.world_size:
            raise UserError(
                f"stage {self.checkpoints.stage}: its checkpoint is of {written} processes, and "
                f"now there are {trainer.world_size}: give it as many again, or remove "
                f"{self.checkpoints.folder} to begin anew"
            )
        if trainer.is_global_zero:
            try:
                overwrite(self.curves, self._loaded["curves"].encode())
            except OSError as failure:
                raise UserError(f"{self.curves}: {failure.strerror or failure}") from failure

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take up the sums of the epoch, and the streams as the data needs them."""
        self._started = self._written = time.monotonic()
        if self._loaded is None:
            return
        own = self._loaded["ranks"][trainer.global_rank]
        cast(DistillationModule, pl_module).take_up(own["running"])
        self._batch, self._began = self._loaded["batch"], own["began"]
        take_up(self._began["streams"])
        for generator, state in zip(_generators(trainer), self._began["generators"], strict=True):
            generator.set_state(state)
        self._pending = own["now"] if self._batch else None
        self._loaded = None
        # The optimisers' schedules asked for the number of batches, and so the trainer began to
        # iterate before it knew in which epoch it is.
        skip(trainer.train_dataloader, self._batch, own["read"])
        iter(cast(Any, trainer.fit_loop)._data_fetcher)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Between two epochs: write what may be written."""
        self._batch = 0
        self._began = {
            "streams": streams(),
            "generators": [each.get_state() for each in _generators(trainer)],
        }
        if trainer.current_epoch and self._due(trainer):
            self._write(trainer, pl_module)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Within an epoch: go on drawing where the checkpoint stood, or write one."""
        if self._pending is not None:
            take_up(self._pending)
            self._pending = None
            # Where a validation has just been, Lightning counts one more on its way here.
            trainer.fit_loop.epoch_loop._batches_that_stepped = self._stepped
            return
        if self.every_n_steps is None or not batch_idx:
            return
        if batch_idx % (self.every_n_steps * trainer.accumulate_grad_batches) == 0:
            self._batch = batch_idx
            self._write(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After the last epoch: what is left to do takes no training."""
        self._batch = 0
        if self._due(trainer):
            self._write(trainer, pl_module)

    def _due(self, trainer: Trainer) -> bool:
        """Whether it is time for a checkpoint after an epoch; the same in every process."""
        due = self.every_n_steps is not None or time.monotonic() - self._written >= SPARE
        return bool(trainer.strategy.broadcast(due)) if trainer.world_size > 1 else due

    def _write(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write one, unless the weights are such that none can go on from there."""
        module = cast(DistillationModule, pl_module)
        module.look()
        sound = all(bool(p.isfinite().all()) for p in module.parameters() if p.requires_grad)
        if trainer.world_size > 1:
            sound = trainer.strategy.reduce_boolean_decision(sound, all=True)
        if sound:
            for logger in trainer.loggers:
                logger.save()  # what it holds back is not logged again by whoever goes on from here
            trainer.save_checkpoint(self.checkpoints.unfinished, weights_only=False)
            self._written = time.monotonic()


def _generators(trainer: Trainer) -> list[torch.Generator]:
    return generators(trainer.train_dataloader)


def _gathered(own: dict[str, Any], world: int) -> list[Any]:
    """What each process has, in the order of their numbers."""
    if world == 1:
        return [own]
    every: list[Any] = [None] * world
    torch.distributed.all_gather_object(every, own)
    return every
