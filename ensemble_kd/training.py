"""Training one stage."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.utilities import move_data_to_device
from pytorch_lightning import Callback, LightningDataModule, seed_everything
from torch import nn

from ensemble_kd.build import Node, build
from ensemble_kd.callbacks import Attendance, BestWeights
from ensemble_kd.checkpoint import Checkpointing
from ensemble_kd.descent import Descent
from ensemble_kd.distributed.sharding import collect, copies, explained, is_sharded
from ensemble_kd.errors import UserError
from ensemble_kd.fitting import fit, make_trainer
from ensemble_kd.module import DistillationModule
from ensemble_kd.networks.prepared import Prepared
from ensemble_kd.objectives import Material
from ensemble_kd.stage import Given, Stage, derived_seed
from ensemble_kd.strategies.strategy import Strategy, objectives
from ensemble_kd.teachers import (
    Ensemble,
    Foreign,
    Frozen,
    LabelSpace,
    Translated,
    TranslatedNumbered,
    asked,
)
from ensemble_kd.types import Batch, Output, labelled
from ensemble_kd.weightings import Weighting


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
        student = _module(stage.student, stage.name, allow)
        strategy = _module(stage.strategy, "strategy.turns", allow)
    if not isinstance(student, nn.Module):
        raise UserError(f"{stage.name}: expected a network, got {student!r}")
    if not isinstance(strategy, Strategy):
        raise UserError(f"strategy.turns: expected a strategy, got {strategy!r}")
    with quiet_seed(derived_seed(stage.seed, "meet")):
        try:
            strategy.meet(student)
        except ValueError as failure:
            raise UserError(f"stage {stage.name}: {failure}") from failure
    return Learner(student, strategy)


def labels_only(strategy: Strategy) -> bool:
    """Whether nothing that a strategy matches can use a sample without a label."""
    found = objectives(strategy)
    return bool(found) and all(objective.needs_labels for objective in found)


def frozen(strategy: Strategy, networks: Iterable[nn.Module]) -> list[Frozen]:
    """Networks as the teachers of a strategy, with the features that its objectives need.

    Raises:
        UserError: an objective knows no layers of one of them, or cannot compare them.
    """
    found = objectives(strategy)
    token_by_token = any(objective.compares_tokens for objective in found)
    try:
        return [
            _frozen(
                network, [t for each in found for t in each.teacher_taps(number)], token_by_token
            )
            for number, network in enumerate(networks)
        ]
    except ValueError as failure:
        raise UserError(f"objective: {failure}") from failure


def _frozen(network: nn.Module, taps: list[str], token_by_token: bool) -> Frozen:
    space: LabelSpace | None = None
    if isinstance(network, Translated | TranslatedNumbered):
        space, network = network.space, network.network  # taps are named as in the teacher itself
    if taps and isinstance(network, Foreign):
        raise ValueError(
            "features are compared, and one of the teachers is no network of PyTorch whose layers "
            "could be looked at: choose an objective of the logits"
        )
    if token_by_token and isinstance(network, Prepared) and network.own_tokens:
        raise ValueError(
            "features are compared token by token, and one of the teachers reads with a tokenizer "
            "of its own: give the data the same one, or choose an objective of the logits"
        )
    return Frozen(network, taps, space)


def weightings(strategy: Strategy) -> list[Weighting]:
    """Every weighting that a strategy holds."""
    return [part for part in strategy.modules() if isinstance(part, Weighting)]


def train(
    stage: Stage,
    learner: Learner,
    teachers: Ensemble,
    data: LightningDataModule,
    classes: int,
    callbacks: Sequence[Callback],
    loggers: Sequence[Any],
    allow: Sequence[str] = (),
    checkpointing: Checkpointing | None = None,
    checkpoint: Path | None = None,
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
        checkpointing: writes checkpoints; None for none.
        checkpoint: where an earlier attempt was cut off; None to begin at the beginning.

    Returns:
        Seconds that the training took, those of an earlier attempt up to its checkpoint included.

    Raises:
        UserError: the trainer refused its settings, or a loss stopped being finite.
        Interrupted: Ctrl-C.
    """
    started = time.perf_counter()
    optimizers: dict[str, Descent] = build(stage.optimizers, "optimizer", allow)
    device = torch.device("cuda" if on_card(stage.trainer) else "cpu")
    # That of an earlier stage would have its last epoch and its rank decide what is served here.
    data.trainer = None
    with quiet_seed(derived_seed(stage.seed, "study")):
        teachers.to(device)
        for weighting in weightings(learner.strategy):
            if weighting.needs_accuracies:
                weighting.measure(
                    [accuracy(each, data.val_dataloader(), device) for each in teachers.members]
                )
        study(learner.strategy, teachers, data, device)
        # The trainer moves them itself, when it has found out what there is.
        teachers.cpu()
        learner.strategy.cpu()
    learner.strategy.begin(learner.student, teachers)
    with quiet_seed(stage.seed):
        apart = learner.strategy.apart
        shared_out = is_sharded(stage.trainer) and not apart
        trained, heard = copies(stage, learner, teachers) if shared_out else (learner, teachers)
        module = DistillationModule(
            trained.student, heard, trained.strategy, optimizers, classes, stage.compiled
        )
        selecting = [BestWeights("student/val_accuracy")] if stage.select == "best" else []
        # A checkpoint holds whole networks.
        writing = [checkpointing] if checkpointing is not None and not shared_out else []
        trainer = make_trainer(
            stage.trainer,
            stage.epochs,
            [*callbacks, *selecting, Attendance(stage.data), *writing],
            loggers,
            allow,
            apart,
        )
        with explained(stage) if shared_out else nullcontext():
            fit(trainer, module, data, stage.name, checkpoint)
    if shared_out:
        collect(learner, trained)
    learner.rest()
    before = 0.0 if checkpointing is None else checkpointing.before
    return before + time.perf_counter() - started


def study(
    strategy: Strategy, teachers: Ensemble, data: LightningDataModule, device: torch.device
) -> None:
    """Let the teachers, and the objectives of a strategy, look at the training data.

    Args:
        strategy: whose objectives, which look at the teachers too.
        teachers: the frozen networks, on ``device``.
        data: serves training batches; each pass is the whole of its first epoch, in every process.
        device: where to compute; the strategy is moved there.
    """

    def batches() -> Iterator[Batch]:
        return (move_data_to_device(batch, device) for batch in data.train_dataloader())

    def said(number: int, batch: Batch) -> Output:
        return teachers.teachers[number].answer(batch)

    teachers.study(batches)
    strategy.to(device)
    for objective in objectives(strategy):
        objective.study(Material(batches, said))


def on_card(trainer: Node) -> bool:
    """Whether a trainer's node asks for a CUDA device, or takes one because there is one."""
    asked = trainer.get("accelerator", "auto")
    return asked in ("gpu", "cuda") or (asked == "auto" and torch.cuda.is_available())


def accuracy(
    network: nn.Module, batches: Iterable[Batch], device: torch.device | str = "cpu"
) -> float:
    """Share of the labelled samples that a network in eval mode, on ``device``, gets right."""
    right = known = 0
    with torch.inference_mode():
        for served in batches:
            batch = move_data_to_device(served, torch.device(device))
            counted = labelled(batch)
            said = network.answer(batch) if isinstance(network, Frozen) else asked(network, batch)
            answers = said.logits.argmax(-1)
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
