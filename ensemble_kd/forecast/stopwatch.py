"""What a training takes, batch by batch, seen from its callbacks."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch.optim import Optimizer

from ensemble_kd.forecast.allocated import most_of
from ensemble_kd.forecast.sizes import buckets
from ensemble_kd.types import Batch

Clock = Callable[[], float]


def synchronised(clock: Clock, device: torch.device) -> float:
    """What a clock says once a device has done all that it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return clock()


class Stopwatch(Callback):
    """Times the batches of a training, and measures memory in its last epoch.

    The first round of batches warms up and does not count.

    Args:
        kinds: how many batches of different sizes take turns.
        clock: in seconds.

    Attributes:
        steps: seconds of training batches, by size.
        validations: of validation batches, likewise.
        epochs: what each epoch but the last took beside its batches.
        most: bytes that a step takes beside what was there before it, by size.
        weights: bytes of all that learns, and of its buffers.
        buffers: bytes of the buffers.
        gradients: bytes of the gradients.
        pieces: in which processes would send them.
        state: bytes of the state of all optimisers.
        begun: when the first batch began.
        first: seconds of the first batch of all.
        spent: seconds from then to the end of the last batch or validation.
    """

    def __init__(self, kinds: int, clock: Clock = time.perf_counter) -> None:
        self.kinds = kinds
        self.clock = clock
        self.steps: dict[int, list[float]] = {}
        self.validations: dict[int, list[float]] = {}
        self.epochs: list[float] = []
        self.most: dict[int, int] = {}
        self.weights = self.buffers = self.gradients = self.state = self.pieces = 0
        self.begun = self.first = self.spent = 0.0
        self._size, self._timed = 0, True
        self._epoch = self._accounted = self._started = 0.0
        self._measuring = ExitStack()
        self._most: Callable[[], int] = lambda: 0

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """End the batch before this one, and start to time, or to measure, this one."""
        now = synchronised(self.clock, pl_module.device)
        if batch_idx:
            self._count(self.steps, now, warm=trainer.current_epoch > 0 or batch_idx > self.kinds)
        elif trainer.current_epoch:
            self.epochs.append(now - self._epoch - self._accounted)
        else:
            self.begun = now
        if not batch_idx:
            self._epoch, self._accounted = now, 0.0
        self._size, self._timed = len(batch.index), True
        if self._last(trainer) and batch_idx < self.kinds:
            watched = [p.grad for p in pl_module.parameters() if p.grad is not None]
            self._most = self._measuring.enter_context(most_of(pl_module.device, watched))
            self._timed = False
        self._started = synchronised(self.clock, pl_module.device)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Note how much memory a batch took; the last one of an epoch ends here."""
        if not self._timed:
            self._measuring.close()
            self.most[len(batch.index)] = self._most()
        if batch_idx == 0 and trainer.current_epoch == 0:
            self._weigh(trainer, pl_module)
        if trainer.is_last_batch:
            # What follows belongs to the epoch, and so this one is not among the others.
            self._accounted += synchronised(self.clock, pl_module.device) - self._started

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """End the batch before this one, and start to time this one."""
        now = synchronised(self.clock, pl_module.device)
        if batch_idx:
            warm = trainer.current_epoch > 0 or batch_idx > self.kinds
            self._count(self.validations, now, warm)
        self._size, self._timed, self._started = len(batch.index), True, now

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """The last batch ends here."""
        if batch_idx + 1 == trainer.num_val_batches[0]:
            self._accounted += synchronised(self.clock, pl_module.device) - self._started

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note how long all epochs took together."""
        self.spent = synchronised(self.clock, pl_module.device) - self.begun

    def _count(self, into: dict[int, list[float]], now: float, warm: bool) -> None:
        """Note what the batch took that ends now."""
        self.first = self.first or now - self._started
        self._accounted += now - self._started
        if warm and self._timed:
            into.setdefault(self._size, []).append(now - self._started)

    @staticmethod
    def _last(trainer: Trainer) -> bool:
        return trainer.current_epoch + 1 == (trainer.max_epochs or 1)

    def _weigh(self, trainer: Trainer, module: LightningModule) -> None:
        tensors = {id(each): each for each in (*module.parameters(), *module.buffers())}
        self.weights = sum(each.nbytes for each in tensors.values())
        self.buffers = sum(each.nbytes for each in module.buffers())
        gradients = [p.nbytes for p in module.parameters() if p.requires_grad]
        self.gradients, self.pieces = sum(gradients), buckets(gradients)
        self.state = sum(map(state_bytes, trainer.optimizers))


def state_bytes(optimizer: Optimizer) -> int:
    """Bytes of an optimiser's state, after its first step."""
    return sum(
        part.nbytes
        for state in optimizer.state.values()
        for part in state.values()
        if isinstance(part, torch.Tensor)
    )
