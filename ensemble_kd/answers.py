"""How teachers answer while a stage is trained: live, in a faster way, or from what was kept."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from ensemble_kd.cache import Shelf
from ensemble_kd.data import Recurring
from ensemble_kd.plan import Plan
from ensemble_kd.report.progress import StageProgress
from ensemble_kd.report.results import versions
from ensemble_kd.stage import Stage, training_code_digest
from ensemble_kd.teachers import (
    Cached,
    Ensemble,
    Frozen,
    Keeping,
    Kept,
    Quick,
    kept_in_memory,
    kept_on_disk,
)
from ensemble_kd.training import on_card

OUTPUTS = "outputs"
"""Folder of the store in which outputs of teachers are kept."""


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
        self.shelf = Shelf(root / OUTPUTS)
        self._kept: dict[str, Kept] = {}

    def of(
        self, stage: Stage, ensemble: Ensemble, digests: Mapping[str, str], progress: StageProgress
    ) -> Ensemble:
        """The teachers of a stage; what is to be kept and is not there yet is computed now.

        Args:
            stage: what is trained.
            ensemble: its teachers, live.
            digests: of all networks of the run, by name.
            progress: hears what was done.
        """
        if stage.ensemble is not None:
            return ensemble
        data, members = self.plan.data, [cast(Frozen, member) for member in ensemble.members]
        recurring = data.recurring() if hasattr(data, "recurring") else None
        kept: list[Kept | None] = [
            self._record(name, teacher, stage, recurring, digests, progress)
            for name, teacher in zip(stage.teachers, members, strict=True)
        ]
        if any(each is not None for each in kept):
            return Cached(members, kept, exact=self.keeping.inexact() is None)
        tapped = any(teacher.taps for teacher in members)
        if self.plan.runtime == "plain" or not members or tapped:
            return ensemble
        return Quick(members, self.plan.runtime, progress.announced)

    def _record(
        self,
        name: str,
        teacher: Frozen,
        stage: Stage,
        recurring: Recurring | None,
        digests: Mapping[str, str],
        progress: StageProgress,
    ) -> Kept | None:
        """What a teacher says of the recurring inputs; None if it is to answer live."""
        classes = self.plan.classes if teacher.space is None else len(teacher.space.entries)
        if recurring is None or teacher.taps:  # features are not kept
            return None
        if not self.keeping.wanted(recurring, classes, stage.epochs):
            return None
        if name not in self._kept:
            started = time.perf_counter()
            device = "cuda" if on_card(stage.trainer) else "cpu"
            teacher.to(device)
            size = self.plan.data.batch_size
            if self.keeping.where == "disk":
                described = {
                    "teacher": digests[name],
                    "data": self.plan.data.digest,
                    "code": training_code_digest(),
                    "versions": versions(),
                }
                format = self.keeping.format
                self._kept[name] = kept_on_disk(
                    self.shelf, described, teacher, recurring, size, classes, format, device
                )
            else:
                self._kept[name] = kept_in_memory(teacher, recurring, size, classes, device)
            seconds = time.perf_counter() - started
            progress.kept(name, recurring.views, len(recurring.index), seconds)
        return self._kept[name]
