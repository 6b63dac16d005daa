"""The LightningModule: it plays the turns of a strategy and knows no method by name."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any, cast

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics.classification import MulticlassAccuracy

from ensemble_kd.clipping import clip_gradients
from ensemble_kd.descent import Descent
from ensemble_kd.errors import UserError
from ensemble_kd.finite import Watch
from ensemble_kd.means import Means
from ensemble_kd.networks.compiled import compiling
from ensemble_kd.objectives import Objective
from ensemble_kd.strategies.strategy import Strategy, learning, objectives
from ensemble_kd.teachers.ensemble import Ensemble
from ensemble_kd.types import UNLABELLED, Batch, Progress, Turn, as_output, labelled

_PLAIN = frozenset({"_current_fx_name", "steps_taken", "_pending", "_batch"})
"""Attributes that are no parameters, modules or buffers, and set in every step."""


class DistillationModule(LightningModule):
    """One student, its frozen teachers and a strategy.

    The optimisation mode is derived: automatic iff the strategy has one player, so that
    accumulation, clipping and precision stay the trainer's; with several players each turn zeroes
    all gradients, goes backward and steps its own player.

    Args:
        student: the network that learns.
        teachers: the frozen networks; they are no part of the state or of the parameters.
        strategy: who learns from whom.
        optimizers: how each player descends, by player; ``default`` serves the others.
        classes: number of classes, for the validation accuracy.
        compiled: run the networks that learn through ``torch.compile`` while they are trained.
    """

    def __init__(
        self,
        student: nn.Module,
        teachers: Ensemble,
        strategy: Strategy,
        optimizers: Mapping[str, Descent],
        classes: int,
        compiled: bool = False,
    ) -> None:
        super().__init__()
        self.student = student
        self.teachers = teachers
        self.strategy = strategy
        self.descents = dict(optimizers)
        self.player_names = tuple(strategy.players(student))
        unknown = set(self.descents) - {"default", *self.player_names}
        if unknown:
            raise UserError(
                f"optimizer: expected players {', '.join(self.player_names)}, "
                f"got {', '.join(sorted(unknown))}"
            )
        self.automatic_optimization = len(self.player_names) == 1
        self.accuracies = nn.ModuleDict(
            {
                name: MulticlassAccuracy(
                    classes,
                    average="micro",
                    ignore_index=UNLABELLED,
                    sync_on_compute=not strategy.apart,  # each process has a network of its own
                )
                for name in self.predictors()
            }
        )
        self.steps_taken = 0
        self.compiled = compiled
        self._settling: tuple[Objective, ...] = ()
        self._compiling = ExitStack()
        self._means = Means()
        self._batch = 0
        self._watch = Watch()
        self._pending: Iterator[Turn] = iter(())

    def predictors(self) -> dict[str, nn.Module]:
        """The networks that learn, by name."""
        return self.strategy.predictors(self.student)

    def deliverable(self) -> nn.Module:
        """The network that is exported and that may teach."""
        return self.strategy.deliverable(self.student)

    def progress(self) -> Progress:
        """How far the stage has come. Steps are counted here: ``global_step`` counts those of every
        player."""
        trainer = self.trainer
        total = self._steps_of_epoch() * (trainer.max_epochs or 1)
        fraction = min(self.steps_taken / max(total, 1), 1.0)
        return Progress(self.steps_taken, trainer.current_epoch, fraction)

    def configure_optimizers(self) -> Any:
        """One optimiser and one scheduler per player; schedulers follow optimiser steps."""
        total = int(self.trainer.estimated_stepping_batches)
        optimizers, schedulers = [], []
        for player, parameters in self.strategy.players(self.student).items():
            optimizer, scheduler = self._descent(player).start(parameters, total)
            optimizers.append(optimizer)
            schedulers.append({"scheduler": scheduler, "interval": "step"})
        return optimizers, schedulers

    def __setattr__(self, name: str, value: Any) -> None:
        """As in any module, without looking for parameters in what is set dozens of times a step.

        The trainer notes the name of every hook that it calls here.
        """
        if name in _PLAIN:
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        """As ever, but a batch that is there already is not looked at part by part."""
        if batch.index.device == device:
            return batch
        moved: Batch = super().transfer_batch_to_device(batch, device, dataloader_idx)
        return moved

    def on_fit_start(self) -> None:
        """Have the networks that learn compiled, in the process that trains them."""
        self._settling = tuple(
            each for each in objectives(self.strategy) if type(each).settle is not Objective.settle
        )
        if self.compiled:
            self._compiling.enter_context(compiling(learning(self.strategy, self.student)))

    def on_fit_end(self) -> None:
        """They are ordinary networks again."""
        self._compiling.close()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """Play the turns of one batch; in automatic mode the trainer does the descending."""
        turns = self.strategy.turns(self.student, self.teachers, batch, self.progress())
        weight = self._weight(batch, batch_idx)
        self._batch = batch_idx
        self._means.count(weight)
        if self.automatic_optimization:
            loss = self._total(next(turns), weight)
            self._pending = turns
            return loss
        moved = {self._descend(turn, weight) for turn in turns}
        for number in sorted(moved):
            self._as_list(self.lr_schedulers())[number].step()
        return None

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Tell the strategy and its objectives of the step; log means once an epoch, not a step."""
        trainer = self.trainer
        accumulated = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        # What a strategy does after a step is done by the last of the batches that made it.
        turns, self._pending = self._pending, iter(())
        if accumulated or trainer.is_last_batch:
            self._stepped(turns)
        if trainer.is_last_batch:
            self._log_means()

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clip with several players, where the trainer does not: here no gradient is scaled."""
        if self.automatic_optimization:
            return
        number = [each is optimizer for each in self.trainer.optimizers].index(True)
        clip = self._descent(self.player_names[number]).clip
        if clip is not None:
            clip_gradients(self, optimizer, clip, "norm")

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as the player's descent says; in automatic mode the trainer calls this."""
        clip = self._descent(self.player_names[0]).clip or gradient_clip_val
        if clip is not None:
            clip_gradients(self, optimizer, clip, gradient_clip_algorithm or "norm")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Accuracy of every network that learns, on the labelled samples."""
        # Not only those that are labelled: of none at all the metric would fail.
        target = batch.target.masked_fill(~labelled(batch), UNLABELLED).flatten()
        said = {n: as_output(network(batch.inputs)) for n, network in self.predictors().items()}
        self.strategy.validated(said, batch, self.progress())
        for name, output in said.items():
            accuracy = cast(MulticlassAccuracy, self.accuracies[name])
            accuracy.update(output.logits.flatten(0, -2), target)
            self.log(
                f"{name}/val_accuracy",
                accuracy,
                on_step=False,
                on_epoch=True,
                batch_size=len(batch.index),
            )

    def look(self) -> None:
        """See that all loss terms up to now are finite.

        Raises:
            UserError: one is not; the message names it and its batch.
        """
        self._watch.look(self._hint())

    def running(self) -> dict[str, Any]:
        """What becomes the means of this epoch, as tensors and plain values."""
        return self._means.state()

    def take_up(self, running: Mapping[str, Any]) -> None:
        """Go on with what ``running`` said in the process that was cut off."""
        self._means.take_up(running, self.device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Progress is part of what is saved."""
        checkpoint["steps_taken"] = self.steps_taken

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continue to count where the checkpoint stopped."""
        self.steps_taken = checkpoint["steps_taken"]

    def _stepped(self, turns: Iterator[Turn]) -> None:
        for extra in turns:
            raise UserError(
                f"strategy: {type(self.strategy).__name__} has one player "
                f"but yielded a second turn, for {extra.player!r}"
            )
        for objective in self._settling:
            objective.settle()
        self.steps_taken += 1

    def _steps_of_epoch(self) -> int:
        trainer = self.trainer
        return math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)

    def _weight(self, batch: Batch, number: int) -> float | None:
        """What a batch counts for in its step, where that is not one.

        The trainer divides by the number of batches that it accumulates also where the last of an
        epoch are fewer. Data that knows the whole step says more exactly what its batches count.
        """
        accumulated = self.trainer.accumulate_grad_batches
        if batch.weight is not None or accumulated == 1:
            return batch.weight
        rest = self.trainer.num_training_batches - number // accumulated * accumulated
        return accumulated / rest if rest < accumulated else None

    def _descend(self, turn: Turn, weight: float | None) -> int:
        """Step the player of a turn; returns its number."""
        number = self.player_names.index(turn.player)
        optimizers = self._as_list(self.optimizers())
        for optimizer in optimizers:
            optimizer.zero_grad()
        self.manual_backward(self._total(turn, weight))
        optimizers[number].step()
        return number

    def _descent(self, player: str) -> Descent:
        return self.descents.get(player, self.descents["default"])

    def _total(self, turn: Turn, weight: float | None) -> Tensor:
        """The sum of a turn's terms; they and what was measured are remembered by name."""
        seen = {
            # A term that names its owner (peer/1/soft) keeps its name.
            name if "/" in name else f"{turn.player}/{name}": value.detach()
            for name, value in (*turn.terms.items(), *turn.measured.items())
        }
        self._watch.note(seen, self.trainer.current_epoch, self._batch, self._hint())
        self._means.add(seen, weight)
        total = functools.reduce(operator.add, turn.terms.values())
        return total if weight is None else total * weight

    def _hint(self) -> str:
        """What helps against numbers that are too large for their format, where that may be it."""
        return "trainer.precision=bf16-mixed, " * (self.trainer.precision == "16-mixed")

    def _log_means(self) -> None:
        self.look()
        for name, mean in self._means.taken():
            self.log(name, mean, on_step=False, on_epoch=True, sync_dist=True, batch_size=1)

    @staticmethod
    def _as_list(one_or_many: Any) -> list[Any]:
        if one_or_many is None:
            return []
        return list(one_or_many) if isinstance(one_or_many, list | tuple) else [one_or_many]
