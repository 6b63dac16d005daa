"""How teachers answer while a stage is trained: live, in a faster way, or from what was kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from torch import nn

from ensemble_kd.cache import Float32, Format
from ensemble_kd.plan import Plan
from ensemble_kd.precision import SINGLE
from ensemble_kd.recall import Device, Inquiry, Recall
from ensemble_kd.report.progress import StageProgress
from ensemble_kd.stage import Stage
from ensemble_kd.teachers import Cached, Ensemble, Frozen, Keeping, Kept, Quick
from ensemble_kd.training import on_card


class Answers:
    """Gives each stage its teachers in the form in which they answer.

    Args:
        plan: of the run.
        keeping: whether, where and how outputs are kept.
        root: the folder of the store.
    """

    def __init__(self, plan: Plan, keeping: Keeping, root: Path) -> None:
        self.plan = plan
        self.keeping = keeping
        self.recall = Recall(root if keeping.where == "disk" else None, self._live)

    def of(
        self, stage: Stage, ensemble: Ensemble, digests: Mapping[str, str], progress: StageProgress
    ) -> Ensemble:
        """The teachers of a stage; what is to be kept and is not there yet is computed now.

        Args:
            stage: what is trained.
            ensemble: its teachers, live.
            digests: of all networks of the run, by name.
            progress: hears what is done.

        Raises:
            UserError: there is no room for what is to be kept, or it cannot be written or read.
        """
        members = ensemble.teachers
        if stage.ensemble is not None or not members:
            return ensemble
        precision, device = stage.trainer.get("precision", SINGLE), _device(on_card(stage.trainer))
        asked = self._inquiry("train", str(precision), device, self.keeping.format)
        kept = [] if asked is None else [self._wanted(e, asked, stage.epochs) for e in members]
        if asked is None or not any(kept):
            return self._live(members, progress, _batches(self.plan.data, stage.epochs))
        named = zip(stage.teachers, members, kept, strict=True)
        chosen = {name: teacher for name, teacher, wanted in named if wanted}
        known = self.recall.of(chosen, digests, asked, progress)
        exact = self.keeping.inexact() is None
        return Cached(members, [known.get(name) for name in stage.teachers], exact)

    def on(
        self,
        split: Literal["val", "test"],
        teachers: Mapping[str, nn.Module],
        digests: Mapping[str, str],
        device: Device,
        progress: StageProgress,
    ) -> dict[str, Kept]:
        """What teachers say of a held-out split, as it is evaluated; none unless kept on disk.

        Answers are kept to the last bit, whatever the format of those of the training.

        Args:
            split: of the data.
            teachers: by name, in the classes of the data.
            digests: of them, by name.
            device: where to compute.
            progress: hears what is done.

        Raises:
            UserError: there is no room for what is to be kept, or it cannot be written or read.
        """
        asked = self._inquiry(split, SINGLE, device, Float32())
        if asked is None or self.keeping.where != "disk":
            return {}
        frozen = {name: Frozen(network) for name, network in teachers.items()}
        known = self.recall.of(frozen, digests, asked, progress)
        return {name: each.logits for name, each in known.items()}

    def _inquiry(
        self, split: Literal["train", "val", "test"], precision: str, device: Device, format: Format
    ) -> Inquiry | None:
        """What is asked of teachers; None where nothing is kept, or the inputs do not recur."""
        data = self.plan.data
        if self.keeping.where == "off" or not hasattr(data, "recurring"):
            return None
        recurring = data.recurring(split)
        if recurring is None:
            return None
        fast = self.plan.runtime == "fast"
        return Inquiry(
            split, data.digest, recurring, data.batch_size, precision, device, fast, format
        )

    def _live(
        self, members: Sequence[Frozen], progress: StageProgress, batches: int | None
    ) -> Ensemble:
        """Teachers that answer live, as fast as they may, for so many batches."""
        runtime = self.plan.runtime
        if runtime != "plain" and any(teacher.taps for teacher in members):
            if runtime != "auto":
                progress.announced("runtime plain: their features are compared")
            return Ensemble(members)
        if runtime == "plain":
            return Ensemble(members)
        if runtime == "auto":
            return Quick(members, "exact", progress.announced, batches)
        return Quick(members, runtime, progress.announced)

    def _wanted(self, teacher: Frozen, asked: Inquiry, epochs: int) -> bool:
        # How large an answer is matters for ``auto`` only, and teachers are not asked for nothing.
        numbers = asked.numbers(teacher) if self.keeping.where == "auto" else 0
        return self.keeping.wanted(asked.recurring, numbers, epochs)


def _device(on_card: bool) -> Device:
    return "cuda" if on_card else "cpu"


def _batches(data: Any, epochs: int) -> int | None:
    """How many training batches a stage has; None where the data does not say."""
    with suppress(TypeError, NotImplementedError):
        return epochs * len(data.train_dataloader())
    return None
