"""Asking teachers about all inputs that come again: once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from lightning_fabric.utilities import move_data_to_device
from torch import Tensor

from ensemble_kd.cache import Format, Places, Writer
from ensemble_kd.teachers.ensemble import Ensemble
from ensemble_kd.teachers.memory import Memory
from ensemble_kd.types import Output

if TYPE_CHECKING:
    from ensemble_kd.data.recurring import Piece, Recurring

LOGITS = "logits"
"""The part of an answer that every teacher has."""


def feature(tap: str) -> str:
    """The name of the part of an answer that is the feature at a tap."""
    return f"feature {tap}"


def parts(said: Output) -> dict[str, Tensor]:
    """What a network said, by the names of its parts."""
    return {LOGITS: said.logits, **{feature(tap): seen for tap, seen in said.features.items()}}


class Slot(Protocol):
    """Where one part of one teacher's answers goes."""

    def missing(self, size: int) -> Sequence[Piece]:
        """What is to be written, in pieces of at most so many samples that start at multiples."""
        ...

    def write(self, piece: Piece, said: Tensor) -> None:
        """Write a piece (n, ...), on the CPU."""
        ...


class MemorySlot:
    """Keeps answers in memory, in the type in which they come.

    Args:
        recurring: the inputs.
        places: of their answers.
    """

    def __init__(self, recurring: Recurring, places: Places) -> None:
        self.recurring = recurring
        self.places = places
        self._values: Tensor | None = None

    def missing(self, size: int) -> Sequence[Piece]:
        """All pieces."""
        return list(self.recurring.chunks(size))

    def write(self, piece: Piece, said: Tensor) -> None:
        """Keep a piece."""
        if self._values is None:
            views, samples = self.recurring.views, len(self.recurring.index)
            self._values = said.new_empty(views * samples, 1, *said.shape[1:])
        view, start, stop = piece
        first = view * len(self.recurring.index)
        self._values[first + start : first + stop, 0] = said

    def memory(self) -> Memory:
        """All that was kept.

        Raises:
            RuntimeError: nothing was.
        """
        if self._values is None:
            raise RuntimeError("nothing was written")
        return Memory(self.places, self._values)


class DiskSlot:
    """Keeps answers in a record.

    Args:
        writer: of the record.
        format: how they are kept.
        index: (n,) int64, the numbers of the samples.
    """

    def __init__(self, writer: Writer, format: Format, index: Tensor) -> None:
        self.writer = writer
        self.format = format
        self.index = index

    def missing(self, size: int) -> Sequence[Piece]:
        """What an earlier run has not written."""
        return self.writer.missing(size)

    def write(self, piece: Piece, said: Tensor) -> None:
        """Encode and write a piece."""
        view, start, stop = piece
        rows = self.index[start:stop]
        flat = said.flatten(1)
        self.writer.write(view, start, self.format.encode(flat, rows, torch.full_like(rows, view)))


def fill(
    live: Ensemble,
    slots: Sequence[Mapping[str, Slot]],
    recurring: Recurring,
    batch_size: int,
    device: torch.device | str,
    moved: Callable[[float], None],
) -> None:
    """Ask the teachers about every piece that some slot misses.

    Each piece is prepared once, for all of them, and in batches of the size of the training's: in
    others, networks round in another way.

    Args:
        live: the teachers, on ``device``.
        slots: of each teacher, where the parts of its answers go.
        recurring: the inputs.
        batch_size: of the training.
        device: where to compute.
        moved: hears after each piece which share of all is done.
    """
    missing = [{part: set(slot.missing(batch_size)) for part, slot in own.items()} for own in slots]
    pieces = sorted(set().union(*(pieces for own in missing for pieces in own.values())))
    batches = recurring.batches(pieces, batch_size)
    for number, (piece, batch) in enumerate(zip(pieces, batches, strict=True), start=1):
        _, start, stop = piece
        here = move_data_to_device(batch, torch.device(device))
        for said, own, wanted in zip(live.own(here), slots, missing, strict=True):
            for part, values in parts(said).items():
                if part in own and piece in wanted[part]:
                    own[part].write(piece, values[: stop - start].cpu())
        moved(number / len(pieces))
