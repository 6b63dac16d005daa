"""What teachers said of inputs that come again: looked up, or asked for now and kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ensemble_kd.asking.inquiry import Inquiry
from ensemble_kd.asking.teamwork import Ahead, begun, fill_together
from ensemble_kd.cache import Places, Shelf
from ensemble_kd.errors import UserError
from ensemble_kd.precision import autocast
from ensemble_kd.report.progress import StageProgress
from ensemble_kd.teachers import (
    Ensemble,
    Frozen,
    Kept,
    Memory,
    Remembered,
    lifted,
    side_by_side,
)
from ensemble_kd.teachers.filling import LOGITS, MemorySlot, Slot, feature, fill
from ensemble_kd.teachers.growing import Growing

OUTPUTS = "outputs"
"""Folder of the store in which outputs of teachers are kept."""

Asking = Callable[[Sequence[Frozen], int], Ensemble]
"""Makes an ensemble of teachers that are asked about so many batches."""

Helped = Callable[[], AbstractContextManager[Any]]
"""Makes a context within which other processes help."""

Keys = Mapping[str, Mapping[str, str]]
"""The key of each part of each teacher's answers, by teacher and part."""


class Recall:
    """Finds what teachers said, and asks them for the rest.

    Args:
        root: the folder of the store; None keeps answers in memory.
    """

    def __init__(self, root: Path | None) -> None:
        self.shelf = None if root is None else Shelf(root / OUTPUTS)
        self._memory: dict[str, Memory] = {}
        self._whose: dict[str, str] = {}

    def forget_but(self, teachers: Collection[str]) -> None:
        """Keep in memory what these teachers said, by name, and nothing else."""
        for key, name in list(self._whose.items()):
            if name not in teachers:
                del self._memory[key], self._whose[key]

    def size_but(self, teachers: Collection[str]) -> int:
        """Bytes in memory of answers of other teachers than these."""
        others = (key for key, name in self._whose.items() if name not in teachers)
        return sum(self._memory[key].nbytes for key in others)

    def of(
        self,
        teachers: Mapping[str, Frozen],
        digests: Mapping[str, str],
        asked: Inquiry,
        asking: Asking,
        progress: StageProgress,
        helped: Helped = nullcontext,
        ahead: Ahead | None = None,
    ) -> dict[str, Remembered]:
        """What teachers say, by name.

        Args:
            teachers: by name.
            digests: of them, by name.
            asked: what they are asked.
            asking: how they answer, where they have to be asked.
            progress: hears what is done.
            helped: a context within which other processes help, on disk.
            ahead: the batches that are asked about first, on disk.

        Raises:
            UserError: there is no room for what is to be kept, or it cannot be written or read.
        """
        described, keys = _described(teachers, digests, asked)
        found = {key: self._find(key) for key in described}
        missing = {key: said for key, said in described.items() if found[key] is None}
        if missing:
            self._ask(teachers, keys, missing, asked, asking, progress, helped, ahead)
            found |= {key: self._find(key) for key in missing}
        found |= lifted({own[LOGITS]: found[own[LOGITS]] for own in keys.values()})
        return {name: _remembered(own, found) for name, own in keys.items()}

    def growing(
        self,
        teachers: Mapping[str, Frozen],
        digests: Mapping[str, str],
        asked: Inquiry,
        fed: Callable[[], bool],
    ) -> tuple[dict[str, Remembered], list[Growing]]:
        """What teachers say, by name, and the records among it that somebody else has to write.

        Args:
            teachers: by name.
            digests: of them, by name.
            asked: what they are asked.
            fed: whether somebody writes.

        Raises:
            UserError: there is no room for what is to be kept, or it cannot be written or read.
        """
        if self.shelf is None:
            raise ValueError("answers must be kept on disk to come from another process")
        described, keys = _described(teachers, digests, asked)
        found = {key: self._find(key) for key in described}
        missing = {key: said for key, said in described.items() if found[key] is None}
        slots = begun(self.shelf, missing, _examples(teachers, keys, missing, asked), asked)
        growing = {key: Growing(self.shelf, slot, fed) for key, slot in slots.items()}
        found |= {key: growing.get(key) or self._find(key) for key in missing}
        known = {name: _remembered(own, found) for name, own in keys.items()}
        return known, list(growing.values())

    def _find(self, key: str) -> Kept | None:
        return self._memory.get(key) if self.shelf is None else self.shelf.find(key)

    def _ask(
        self,
        teachers: Mapping[str, Frozen],
        keys: Keys,
        missing: Mapping[str, Mapping[str, Any]],
        asked: Inquiry,
        asking: Asking,
        progress: StageProgress,
        helped: Helped,
        ahead: Ahead | None,
    ) -> None:
        """Ask all teachers of which something is missing, together."""
        if self.shelf is None:
            self._ask_into_memory(teachers, keys, missing, asked, asking, progress)
            return
        slots = begun(self.shelf, missing, _examples(teachers, keys, missing, asked), asked)
        lacking = _by_teacher(keys, slots)
        if not lacking:
            return  # another run has written it in the meantime
        with _answering(teachers, lacking, asked, asking, progress) as (live, moved), helped():
            fill_together(self.shelf, slots, list(lacking.values()), live, asked, moved, ahead)

    def _ask_into_memory(
        self,
        teachers: Mapping[str, Frozen],
        keys: Keys,
        missing: Mapping[str, Mapping[str, Any]],
        asked: Inquiry,
        asking: Asking,
        progress: StageProgress,
    ) -> None:
        recurring, size = asked.recurring, asked.batch_size
        places = Places(recurring.index, recurring.views)
        slots = {key: MemorySlot(recurring, places) for key in missing}
        lacking = _by_teacher(keys, slots)
        with _answering(teachers, lacking, asked, asking, progress) as (live, moved):
            pieces = list(recurring.chunks(size))
            shares = (number / len(pieces) for number in range(1, len(pieces) + 1))
            fill(
                live,
                list(lacking.values()),
                recurring,
                size,
                asked.device,
                pieces,
                lambda piece: moved(next(shares)),
            )
        self._whose |= {key: name for name, own in keys.items() for key in own.values()}
        of_logits = [key for key, said in missing.items() if said["answers"] == LOGITS]
        joined = side_by_side([slots.pop(key).memory() for key in of_logits])
        self._memory |= dict(zip(of_logits, joined, strict=True))
        self._memory |= {key: slot.memory() for key, slot in slots.items()}


def _described(
    teachers: Mapping[str, Frozen], digests: Mapping[str, str], asked: Inquiry
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, str]]]:
    """What determines each part of each answer, by key; and the keys, by teacher and part."""
    described: dict[str, dict[str, Any]] = {}
    keys: dict[str, dict[str, str]] = {}
    for name, teacher in teachers.items():
        keys[name] = {}
        for part in (LOGITS, *map(feature, teacher.taps)):
            said = asked.described(teacher, digests[name], part)
            keys[name][part] = key = _key(said)
            described[key] = said
    return described, keys


def _examples(
    teachers: Mapping[str, Frozen], keys: Keys, missing: Collection[str], asked: Inquiry
) -> dict[str, Tensor]:
    """One answer of each missing part, by key."""
    examples: dict[str, Tensor] = {}
    for name, own in keys.items():
        if not set(missing).isdisjoint(own.values()):
            said = asked.example(teachers[name])
            examples |= {own[part]: _storable(name, said[part]) for part in own}
    return examples


def _by_teacher(keys: Keys, slots: Mapping[str, Slot]) -> dict[str, dict[str, Slot]]:
    """Where the parts of each teacher's answers go, of the teachers that have to be asked."""
    own = {
        name: {part: slots[key] for part, key in parts.items() if key in slots}
        for name, parts in keys.items()
    }
    return {name: parts for name, parts in own.items() if parts}


@contextmanager
def _answering(
    teachers: Mapping[str, Frozen],
    lacking: Collection[str],
    asked: Inquiry,
    asking: Asking,
    progress: StageProgress,
) -> Iterator[tuple[Ensemble, Callable[[float], None]]]:
    """The teachers that have to be asked, ready to answer, and what hears how far they are."""
    recurring = asked.recurring
    batches = recurring.views * -(-len(recurring.index) // asked.batch_size)
    live = asking([teachers[name] for name in lacking], batches).to(asked.device)
    with (
        progress.answering(tuple(lacking), recurring.views, len(recurring.index)) as moved,
        _threads(asked.threads),
        autocast(asked.precision, torch.device(asked.device).type),
    ):
        yield live, moved


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _storable(teacher: str, example: Tensor) -> Tensor:
    if example.dtype == torch.float64:
        raise UserError(
            f"cache=disk: expected teachers that answer in float32, got {teacher}, whose answers "
            "are float64: cache=memory keeps these"
        )
    return example


def _key(described: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _remembered(keys: Mapping[str, str], found: Mapping[str, Kept | None]) -> Remembered:
    kept: dict[str, Kept] = {}
    for part, key in keys.items():
        answers = found[key]
        if answers is None:
            raise RuntimeError(f"answers that were just kept are not there: {key}")
        kept[part] = answers
    logits = kept.pop(LOGITS)
    return Remembered(logits, {part.removeprefix(feature("")): each for part, each in kept.items()})
