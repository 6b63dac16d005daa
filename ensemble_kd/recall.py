"""What teachers said of inputs that come again: looked up, or asked for now and kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

import torch
from lightning_fabric.utilities import move_data_to_device
from torch import Tensor

from ensemble_kd.cache import Float32, Format, Places, Shelf
from ensemble_kd.data import Recurring
from ensemble_kd.errors import UserError
from ensemble_kd.fingerprint import foreign_code
from ensemble_kd.precision import autocast
from ensemble_kd.report.progress import StageProgress
from ensemble_kd.report.results import versions
from ensemble_kd.stage import training_code_digest
from ensemble_kd.teachers import (
    Ensemble,
    Frozen,
    Kept,
    Memory,
    Remembered,
    lifted,
    side_by_side,
)
from ensemble_kd.teachers.filling import LOGITS, DiskSlot, MemorySlot, Slot, feature, fill, parts

OUTPUTS = "outputs"
"""Folder of the store in which outputs of teachers are kept."""

Device = Literal["cpu", "cuda"]

Asking = Callable[[Sequence[Frozen], int], Ensemble]
"""Makes an ensemble of teachers that are asked about so many batches."""

Keys = Mapping[str, Mapping[str, str]]
"""The key of each part of each teacher's answers, by teacher and part."""


@dataclass(frozen=True)
class Inquiry:
    """What teachers are asked, and how.

    Attributes:
        split: of the data.
        data: digest of the data.
        recurring: the inputs.
        batch_size: of the training.
        precision: of the trainer.
        device: where to compute.
        threads: with how many, on a processor; sums over several of them round in another order.
        fast: whether the teachers' runtime may round in another way.
        format: how logits are kept on disk; features are kept as they are.
    """

    split: Literal["train", "val", "test"]
    data: str
    recurring: Recurring
    batch_size: int
    precision: str
    device: Device
    threads: int
    fast: bool
    format: Format

    def described(self, teacher: Frozen, digest: str, part: str) -> dict[str, Any]:
        """All that decides about one part of the answers of one teacher, as plain values."""
        involved = [*teacher.network.modules(), self.recurring.augment]
        return {
            "teacher": digest,
            "answers": part,
            "data": self.data,
            "split": self.split,
            "samples": len(self.recurring.index),
            "views": self.recurring.views,
            "batch_size": self.batch_size,
            "device": _device_in_words(self.device),
            "precision": self.precision,
            "matmul_precision": torch.get_float32_matmul_precision(),
            "threads": self.threads,
            "runtime": "fast" if self.fast else "exact",
            "format": self.format_of(part).name,
            "code": training_code_digest(),
            "foreign_code": foreign_code(involved),
            "versions": versions(),
        }

    def format_of(self, part: str) -> Format:
        """How a part of the answers is kept on disk."""
        return self.format if part == LOGITS else Float32()

    def example(self, teacher: Frozen) -> dict[str, Tensor]:
        """What a teacher says of one sample, by part."""
        inputs = self.recurring.inputs(self.recurring.index[:1], 0)
        teacher.to(self.device)
        with autocast(self.precision, self.device):
            said = teacher.own(move_data_to_device(inputs, torch.device(self.device)))
        return {part: values[0] for part, values in parts(said).items()}

    def size(self, teacher: Frozen) -> int:
        """Bytes that all answers of a teacher take in memory."""
        one = sum(values.nbytes for values in self.example(teacher).values())
        return self.recurring.views * len(self.recurring.index) * one


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
    ) -> dict[str, Remembered]:
        """What teachers say, by name.

        Args:
            teachers: by name.
            digests: of them, by name.
            asked: what they are asked.
            asking: how they answer, where they have to be asked.
            progress: hears what is done.

        Raises:
            UserError: there is no room for what is to be kept, or it cannot be written or read.
        """
        described: dict[str, dict[str, Any]] = {}
        keys: dict[str, dict[str, str]] = {}
        for name, teacher in teachers.items():
            keys[name] = {}
            for part in (LOGITS, *map(feature, teacher.taps)):
                said = asked.described(teacher, digests[name], part)
                keys[name][part] = key = _key(said)
                described[key] = said
        found = {key: self._find(key) for key in described}
        missing = {key: said for key, said in described.items() if found[key] is None}
        if missing:
            self._ask(teachers, keys, missing, asked, asking, progress)
            found |= {key: self._find(key) for key in missing}
        found |= lifted({own[LOGITS]: found[own[LOGITS]] for own in keys.values()})
        return {name: _remembered(own, found) for name, own in keys.items()}

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
    ) -> None:
        """Ask all teachers of which something is missing, together."""
        with ExitStack() as held:
            if self.shelf is None:
                places = Places(asked.recurring.index, asked.recurring.views)
                slots = {key: MemorySlot(asked.recurring, places) for key in missing}
                self._fill(teachers, keys, slots, asked, asking, progress)
                self._whose |= {key: name for name, own in keys.items() for key in own.values()}
                of_logits = [key for key, said in missing.items() if said["answers"] == LOGITS]
                joined = side_by_side([slots.pop(key).memory() for key in of_logits])
                self._memory |= dict(zip(of_logits, joined, strict=True))
                self._memory |= {key: slot.memory() for key, slot in slots.items()}
                return
            examples: dict[str, Tensor] = {}
            for name, own in keys.items():
                if not missing.keys().isdisjoint(own.values()):
                    said = asked.example(teachers[name])
                    examples |= {own[part]: _storable(name, said[part]) for part in own}
            records = _on_disk(self.shelf, missing, examples, asked, held)
            self._fill(teachers, keys, records, asked, asking, progress)
            for record in records.values():
                record.writer.finish()

    def _fill(
        self,
        teachers: Mapping[str, Frozen],
        keys: Keys,
        slots: Mapping[str, Slot],
        asked: Inquiry,
        asking: Asking,
        progress: StageProgress,
    ) -> None:
        own = {
            name: {part: slots[key] for part, key in keys[name].items() if key in slots}
            for name in teachers
        }
        lacking = {name: parts for name, parts in own.items() if parts}
        if not lacking:
            return  # another run has written it while this one waited for the lock
        size, recurring = asked.batch_size, asked.recurring
        batches = recurring.views * -(-len(recurring.index) // size)
        live = asking([teachers[name] for name in lacking], batches).to(asked.device)
        with (
            progress.answering(tuple(lacking), recurring.views, len(recurring.index)) as moved,
            _threads(asked.threads),
            autocast(asked.precision, asked.device),
        ):
            fill(live, list(lacking.values()), recurring, size, asked.device, moved)


def _on_disk(
    shelf: Shelf,
    missing: Mapping[str, Mapping[str, Any]],
    examples: Mapping[str, Tensor],
    asked: Inquiry,
    held: ExitStack,
) -> dict[str, DiskSlot]:
    """A place on the shelf for each missing part, by key, locked until ``held`` is closed."""
    index, views = asked.recurring.index, asked.recurring.views
    formats = {key: asked.format_of(said["answers"]) for key, said in missing.items()}
    shapes = {key: tuple(examples[key].shape) for key in missing}
    for key in sorted(missing):  # in one order everywhere, or two runs wait for each other
        held.enter_context(shelf.locked(key))
    # Another run may have written some of them in the meantime.
    lacking = [key for key in missing if shelf.find(key) is None]
    rows = views * len(index)
    shelf.expect_room({key: rows * formats[key].row_bytes(prod(shapes[key])) for key in lacking})
    slots: dict[str, DiskSlot] = {}
    for key in lacking:
        writer = shelf.writing(key, missing[key], index, views, shapes[key], formats[key])
        slots[key] = DiskSlot(writer, formats[key], index)
    return slots


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _device_in_words(device: Device) -> str:
    """What computes, as far as it decides how numbers are rounded."""
    if device == "cpu":
        return f"cpu, {torch.backends.cpu.get_cpu_capability()}"
    libraries = f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    return f"{torch.cuda.get_device_name()}, {libraries}"


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
