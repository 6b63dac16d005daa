"""How teachers answer while a stage is trained: live, in a faster way, or from what was kept."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from pytorch_lightning import LightningDataModule
from torch import nn

from ensemble_kd.asking.crew import Crew
from ensemble_kd.asking.inquiry import Inquiry
from ensemble_kd.asking.placing import PROCESS, home
from ensemble_kd.asking.recall import Helped, Recall
from ensemble_kd.asking.teamwork import Ahead
from ensemble_kd.build import Node
from ensemble_kd.cache import Float32, Format
from ensemble_kd.data.adapted import HOOKS
from ensemble_kd.distributed import ranks
from ensemble_kd.errors import UserError
from ensemble_kd.plan import Plan, Runtime
from ensemble_kd.precision import SINGLE
from ensemble_kd.report.progress import StageProgress
from ensemble_kd.stage import Stage
from ensemble_kd.teachers import (
    Awaited,
    Cached,
    Ensemble,
    Foreign,
    Frozen,
    Keeping,
    Kept,
    Numbered,
    Quick,
)
from ensemble_kd.training import on_card

Split = Literal["train", "val", "test"]
LOADERS = {name: f"{name}_dataloader" for name in ("train", "val", "test")}


class Answers:
    """Gives each stage its teachers in the form in which they answer.

    Args:
        plan: of the run.
        keeping: whether, where and how outputs are kept.
        root: the folder of the store.

    Raises:
        UserError: other processes are to answer, and cannot.
    """

    def __init__(self, plan: Plan, keeping: Keeping, root: Path) -> None:
        self.plan = plan
        self.keeping = keeping
        self.recall = Recall(root if keeping.where == "disk" else None)
        if keeping.workers > 1 and plan.config is None:
            raise UserError(
                "cache.workers: expected 1 for a run with parts given as objects, which other "
                f"processes cannot have, got {keeping.workers}"
            )
        if plan.placed == PROCESS:
            for stage in plan.stages:
                if stage.teachers and stage.hears and stage.ensemble is None:
                    self.expect_recurring(stage)

    def of(
        self,
        stage: Stage,
        ensemble: Ensemble,
        digests: Mapping[str, str],
        progress: StageProgress,
        ahead: Ahead | None = None,
    ) -> Ensemble:
        """The teachers of a stage; what is to be kept and is not there yet is computed now.

        Args:
            stage: what is trained.
            ensemble: its teachers, live.
            digests: of all networks of the run, by name.
            progress: hears what is done.
            ahead: the batches that are asked about first, where answers are kept on disk.

        Raises:
            UserError: there is no room for what is to be kept, or it cannot be written or read.
        """
        members, runtime = ensemble.teachers, self.plan.runtime
        if stage.hears and self.plan.placed not in (None, PROCESS):
            ensemble.stay(torch.device(home(self.plan.placed, stage.trainer)))
        if stage.ensemble is not None or not members:
            return ensemble
        asked = self._inquiry("train", stage.trainer, self.keeping.format) if stage.hears else None
        chosen: dict[str, Frozen] = {}
        if asked is not None:
            later = self.plan.stages[self.plan.stages.index(stage) :]
            self.recall.forget_but({name for each in later for name in each.teachers})
            named = _looking(dict(zip(stage.teachers, members, strict=True)))
            chosen = {name: named[name] for name in self._wanted(named, asked, stage.epochs)}
        if asked is None or not chosen:
            batches = _batches(self.plan.data, stage.epochs) if runtime == "auto" else None
            return _live(members, runtime, progress, batches)

        def asking(members: Sequence[Frozen], batches: int) -> Ensemble:
            return _live(members, runtime, progress, batches)

        if self.plan.placed == PROCESS and (
            fed := self._fed(stage, members, chosen, digests, asked)
        ):
            return fed
        helped = self._helped(stage)
        known = ranks.together(
            lambda: self.recall.of(chosen, digests, asked, asking, progress, helped, ahead)
        )
        remembered = [known.get(name) for name in stage.teachers]
        exact = self.keeping.inexact() is None
        return Cached(members, remembered, asked.batch_size, exact)

    def expect_recurring(self, stage: Stage) -> None:
        """See that what the teachers of a stage say can be kept.

        Raises:
            UserError: it cannot.
        """
        if self._inquiry("train", stage.trainer, self.keeping.format) is None:
            raise UserError(
                f"cache: what the teachers of stage {stage.name} are asked never comes again: "
                "expected data without an augmentation, or with data.cycle=4, say"
            )

    def on(
        self,
        split: Literal["val", "test"],
        teachers: Mapping[str, nn.Module],
        digests: Mapping[str, str],
        trainer: Node,
        progress: StageProgress,
    ) -> dict[str, Kept]:
        """What teachers say of a held-out split, as it is evaluated; none unless kept on disk.

        Answers are kept to the last bit, whatever the format and the runtime of the training.
        Where they cannot be kept a line says so, and a run that is done is evaluated all the same.

        Args:
            split: of the data.
            teachers: by name, in the classes of the data.
            digests: of them, by name.
            trainer: the node of the trainer.
            progress: hears what is done.
        """
        if self.keeping.where != "disk":
            return {}
        asked = self._inquiry(split, {**trainer, "precision": SINGLE, "devices": 1}, Float32())
        if asked is None:
            return {}
        frozen = _looking({name: Frozen(network) for name, network in teachers.items()})

        def asking(members: Sequence[Frozen], batches: int) -> Ensemble:
            return Ensemble(members)

        try:
            known = ranks.together(lambda: self.recall.of(frozen, digests, asked, asking, progress))
        except UserError as failure:
            print(f"warning: {failure}; teachers are evaluated live", file=sys.stderr)
            return {}
        return {name: each.logits for name, each in known.items()}

    def _helped(self, stage: Stage) -> Helped:
        """The further processes that fill the records of a stage; a group needs none."""
        further = self.keeping.workers - 1
        if not further or self.plan.config is None or ranks.size() > 1:
            return nullcontext
        return partial(Crew, self.plan.config, further, stage.name)

    def _fed(
        self,
        stage: Stage,
        members: Sequence[Frozen],
        chosen: Mapping[str, Frozen],
        digests: Mapping[str, str],
        asked: Inquiry,
    ) -> Ensemble | None:
        """The teachers, asked by another process from now on; None where all is known already."""
        if self.plan.config is None:
            raise ValueError("config of the plan must be known, got None")
        feeder = Crew(self.plan.config, 1, stage.name, ahead=True)
        known, growing = self.recall.growing(chosen, digests, asked, lambda: feeder.alive)
        if not growing:
            return None
        feeder.start()
        remembered = [known.get(name) for name in stage.teachers]
        return Awaited(members, remembered, asked.batch_size, growing, feeder)

    def _inquiry(self, split: Split, trainer: Node, format: Format) -> Inquiry | None:
        """What is asked of teachers; None where nothing is kept, or the inputs do not recur."""
        data = self.plan.data
        if self.keeping.where == "off" or not _serves_what_recurs(data, LOADERS[split]):
            return None
        recurring = data.recurring(split)
        if recurring is None:
            return None
        precision = trainer.get("precision")
        return Inquiry(
            split=split,
            data=data.digest,
            recurring=recurring,
            batch_size=data.batch_size,
            precision=SINGLE if precision in (None, 32, "32") else str(precision),
            device=home(self.plan.placed if split == "train" else None, trainer),
            threads=_threads(trainer),
            fast=split == "train" and self.plan.runtime == "fast",
            format=format,
        )

    def _wanted(self, teachers: Mapping[str, Frozen], asked: Inquiry, epochs: int) -> list[str]:
        """The teachers whose answers are kept: with ``auto`` as many as there is room for."""
        wanted, taken = [], self.recall.size_but(teachers)
        for name, teacher in teachers.items():
            # How large an answer is matters for ``auto`` only: elsewhere nobody is asked for it.
            own = asked.size(teacher) if self.keeping.where == "auto" else 0
            if self.keeping.wanted(asked.recurring, epochs, taken + own):
                wanted.append(name)
                taken += own
        return wanted


def _looking(teachers: Mapping[str, Frozen]) -> dict[str, Frozen]:
    """Those who look at inputs; of the others, all answers are there already."""
    return {
        name: teacher
        for name, teacher in teachers.items()
        if not isinstance(teacher.network, Numbered)
    }


def _live(
    members: Sequence[Frozen], runtime: Runtime, progress: StageProgress, batches: int | None
) -> Ensemble:
    """Teachers that answer live, as fast as they may, for so many batches."""
    if runtime == "plain":
        return Ensemble(members)
    why = ""
    if any(teacher.home is not None for teacher in members):
        why = "they are on a device of their own"
    elif any(teacher.taps for teacher in members):
        why = "their features are compared"
    elif any(isinstance(teacher.network, Foreign) for teacher in members):
        why = "not all of them are networks of PyTorch"
    if why:
        if runtime != "auto":
            progress.announced(f"runtime plain: {why}")
        return Ensemble(members)
    if runtime == "auto":
        return Quick(members, "exact", progress.announced, batches)
    return Quick(members, runtime, progress.announced)


def _serves_what_recurs(data: Any, loader: str) -> bool:
    """Whether data can say which inputs recur, and nothing that a user wrote changes them."""
    kinds = type(data).__mro__
    telling = next((number for number, kind in enumerate(kinds) if "recurring" in vars(kind)), None)
    if telling is None:
        return False
    changed = any(
        getattr(type(data), hook) is not getattr(LightningDataModule, hook) for hook in HOOKS
    )
    return not changed and not any(loader in vars(kind) for kind in kinds[:telling])


def _threads(trainer: Node) -> int:
    """Threads of the process that trains: Lightning shares the cores among several of them."""
    devices, threads = trainer.get("devices", 1), torch.get_num_threads()
    if on_card(trainer) or not isinstance(devices, int) or devices < 2:
        return threads
    if "OMP_NUM_THREADS" in os.environ:
        return threads
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (cores or 1) // devices)


def _batches(data: Any, epochs: int) -> int | None:
    """How many training batches a stage has; None where the data does not say."""
    loader = data.train_dataloader()
    # One without a length has no ``__len__``, or one that says so in one of these ways.
    with suppress(TypeError, NotImplementedError):
        return epochs * len(loader)
    return None
