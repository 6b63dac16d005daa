"""Training one stage."""

from __future__ import annotations

import copy
import textwrap
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from pytorch_lightning import Callback, LightningDataModule, seed_everything
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ensemble_kd.build import Node, build
from ensemble_kd.callbacks import BestWeights
from ensemble_kd.descent import Descent
from ensemble_kd.errors import UserError
from ensemble_kd.fitting import fit, make_trainer
from ensemble_kd.module import DistillationModule
from ensemble_kd.objectives import Objective
from ensemble_kd.stage import Given, Stage, derived_seed
from ensemble_kd.strategies.strategy import Strategy
from ensemble_kd.teachers import Ensemble, Frozen
from ensemble_kd.types import Batch, Progress, as_output, labelled
from ensemble_kd.weightings import Weighting

REHEARSED = 8
"""Samples of the batch with which a stage is tried out."""


@dataclass(frozen=True)
class Learner:
    """What a stage trains: a student and the strategy with the networks of its own."""

    student: nn.Module
    strategy: Strategy

    def predictors(self) -> dict[str, nn.Module]:
        """The networks that learn, by name."""
        return self.strategy.predictors(self.student)

    def deliverable(self) -> nn.Module:
        """The network that is exported and that may teach."""
        return self.strategy.deliverable(self.student)

    def companions(self) -> nn.Module | None:
        """All that was trained, when that is more than the delivered network."""
        if self.deliverable() is self.student and not self.strategy.state_dict():
            return None
        return nn.ModuleDict({"student": self.student, "strategy": self.strategy})

    def start_from(self, network: nn.Module, stage: str) -> None:
        """Take over the weights of a network of the same architecture.

        Raises:
            UserError: it has another architecture.
        """
        try:
            self.student.load_state_dict(network.state_dict())
        except RuntimeError as failure:
            reason = " ".join(str(failure).split())
            raise UserError(f"stage {stage}: cannot start from the weights: {reason}") from failure

    def rest(self) -> None:
        """Back on the CPU and in eval mode."""
        self.student.cpu().eval()
        self.strategy.cpu().eval()


def assemble(stage: Stage, allow: Sequence[str] = ()) -> Learner:
    """The student and the strategy of a stage, initialised from its seed."""
    with quiet_seed(stage.seed):
        student = _module(stage.student, f"{stage.name}.student", allow)
        strategy = _module(stage.strategy, "strategy.turns", allow)
    if not isinstance(student, nn.Module):
        raise UserError(f"{stage.name}: expected a network, got {student!r}")
    if not isinstance(strategy, Strategy):
        raise UserError(f"strategy.turns: expected a strategy, got {strategy!r}")
    with quiet_seed(derived_seed(stage.seed, "meet")):
        strategy.meet(student)
    return Learner(student, strategy)


def labels_only(strategy: Strategy) -> bool:
    """Whether nothing that a strategy matches can use a sample without a label."""
    objectives = [part for part in strategy.modules() if isinstance(part, Objective)]
    return bool(objectives) and all(objective.needs_labels for objective in objectives)


def weightings(strategy: Strategy) -> list[Weighting]:
    """Every weighting that a strategy holds."""
    return [part for part in strategy.modules() if isinstance(part, Weighting)]


def rehearse(
    stage: Stage, learner: Learner, teachers: Mapping[str, nn.Module], batch: Batch, classes: int
) -> None:
    """Play one small batch through copies of everything, before anything is trained or written.

    Args:
        stage: the stage.
        learner: its student and strategy; they are not changed.
        teachers: the networks that will teach it, by name, trained or not yet.
        batch: a training batch; a few samples of it are used.
        classes: number of classes of the data.

    Raises:
        UserError: whatever goes wrong, in one line that names the stage.
    """
    few = pytree.tree_map(
        lambda part: part[:REHEARSED] if isinstance(part, Tensor) else part, batch
    )
    student, strategy = copy.deepcopy((learner.student, learner.strategy))
    own = {stage.reported(name): part for name, part in strategy.predictors(student).items()}
    networks = {**teachers, **own}
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, network in networks.items():
            said = _said(stage, name, network, few)
            if said.logits.shape[-1] != classes:
                raise UserError(
                    f"{name}: expected {classes} classes as in the data, got a network that "
                    f"answers {said.logits.shape[-1]}"
                )
        ensemble = Ensemble([Frozen(copy.deepcopy(network)) for network in teachers.values()])
        for weighting in weightings(strategy):
            if weighting.needs_labels and batch.mask is not None:
                raise UserError(
                    f"weighting: {type(weighting).__name__} needs a label for every sample, and "
                    "some of the data has none: choose another weighting, or data.labelled=null"
                )
            weighting.measure([1.0] * len(teachers))
        try:
            strategy.begin(student, ensemble)
            for turn in strategy.turns(student, ensemble, few, Progress(0, 0, 0.0)):
                torch.stack(list(turn.terms.values())).sum().backward()
        except UserError:
            raise
        except (ValueError, RuntimeError, TypeError, IndexError, KeyError) as failure:
            reason = " ".join(str(failure).split())
            raise UserError(f"stage {stage.name}: {reason}") from failure


def train(
    stage: Stage,
    learner: Learner,
    teachers: Ensemble,
    data: LightningDataModule,
    classes: int,
    callbacks: Sequence[Callback],
    loggers: Sequence[Any],
    allow: Sequence[str] = (),
) -> float:
    """Train a stage's learner in place.

    Args:
        stage: what is trained, and how.
        learner: from ``assemble``.
        teachers: the frozen networks of ``stage.teachers``, in that order.
        data: serves training and validation batches.
        classes: number of classes.
        callbacks: Lightning callbacks, such as curves and progress.
        loggers: Lightning loggers.
        allow: packages beside this project's that nodes may name.

    Returns:
        Seconds that the training took.

    Raises:
        UserError: the trainer refused its settings, or a loss stopped being finite.
        Interrupted: Ctrl-C.
    """
    started = time.perf_counter()
    optimizers: dict[str, Descent] = build(stage.optimizers, "optimizer", allow)
    for weighting in weightings(learner.strategy):
        if weighting.needs_accuracies:
            measured = [accuracy(network, data.val_dataloader()) for network in teachers.members]
            weighting.measure(measured)
    learner.strategy.begin(learner.student, teachers)
    with quiet_seed(stage.seed):
        module = DistillationModule(
            learner.student, teachers, learner.strategy, optimizers, classes
        )
        selecting = [BestWeights("student/val_accuracy")] if stage.select == "best" else []
        trainer = make_trainer(
            stage.trainer, stage.epochs, [*callbacks, *selecting], loggers, allow
        )
        fit(trainer, module, data, stage.name)
    learner.rest()
    return time.perf_counter() - started


def accuracy(network: nn.Module, batches: Iterable[Batch]) -> float:
    """Share of the labelled samples that a network in eval mode gets right."""
    right = known = 0
    with torch.inference_mode():
        for batch in batches:
            counted = labelled(batch)
            answers = as_output(network(batch.inputs)).logits.argmax(-1)
            right += int((answers == batch.target)[counted].sum())
            known += int(counted.sum())
    return right / max(known, 1)


@contextmanager
def quiet_seed(seed: int) -> Iterator[None]:
    """Draw everything inside from a seed, and leave the caller's random state as it was."""
    from pytorch_lightning.utilities.seed import isolate_rng

    with isolate_rng():
        seed_everything(seed, verbose=False)
        yield


def _module(part: Node | Given, key: str, allow: Sequence[str]) -> Any:
    return part.fresh() if isinstance(part, Given) else build(part, key, allow)


def _said(stage: Stage, name: str, network: nn.Module, batch: Batch) -> Any:
    try:
        with torch.no_grad():
            return as_output(copy.deepcopy(network).train()(batch.inputs))
    except (ValueError, RuntimeError, TypeError) as failure:
        inputs = batch.inputs
        kind = f"shape {tuple(inputs.shape[1:])}" if isinstance(inputs, Tensor) else "this data"
        reason = textwrap.shorten(str(failure), 200, placeholder=" ...")
        raise UserError(f"{name}: the network fails on samples of {kind}: {reason}") from failure
