"""Asking teachers about all inputs that come again: once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from lightning_fabric.utilities import move_data_to_device
from torch import Tensor

from ensemble_kd.cache import Format, Numbers, Places, Writer
from ensemble_kd.teachers.ensemble import Ensemble
from ensemble_kd.teachers.memory import Memory
from ensemble_kd.types import Batch, Output

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

    def lacks(self, piece: Piece) -> bool:
        """Whether a piece is to be written."""
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

    def lacks(self, piece: Piece) -> bool:
        """Always."""
        return True

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

    def lacks(self, piece: Piece) -> bool:
        """Whether nobody has written it."""
        return self.writer.lacks(*piece)

    def write(self, piece: Piece, said: Tensor) -> None:
        """Encode and write a piece."""
        view, start, stop = piece
        rows = self.index[start:stop]
        flat = said.flatten(1)
        self.writer.write(view, start, self.format.encode(flat, rows, torch.full_like(rows, view)))

    def write_batch(self, batch: Batch, said: Tensor) -> None:
        """Encode and write (b, ...), what was said of a batch whose samples lie anywhere."""
        places = self._places(batch)
        lacking = ~self.writer.written.reshape(-1)[places]
        rows, views = batch.index.cpu(), torch.from_numpy(places // len(self.index))
        encoded = self.format.encode(said.flatten(1), rows, views)
        self.writer.write_rows(places[lacking], encoded[lacking])

    def lacks_batch(self, batch: Batch) -> bool:
        """Whether nobody has written some row of a batch whose samples lie anywhere."""
        return not self.writer.written.reshape(-1)[self._places(batch)].all()

    def _places(self, batch: Batch) -> Numbers:
        if batch.view is None:
            raise ValueError("batch must say which views its inputs are, got None")
        positions = torch.searchsorted(self.index, batch.index.cpu())
        return (batch.view.cpu() * len(self.index) + positions).numpy()


def fill(
    live: Ensemble,
    slots: Sequence[Mapping[str, Slot]],
    recurring: Recurring,
    batch_size: int,
    device: torch.device | str,
    pieces: Iterable[Piece],
    done: Callable[[Piece], None],
) -> None:
    """Ask the teachers about pieces, and write what the slots lack of them.

    Each piece is prepared once, for all of them, and in batches of the size of the training's: in
    others, networks round in another way.

    Args:
        live: the teachers, on ``device``.
        slots: of each teacher, where the parts of its answers go.
        recurring: the inputs.
        batch_size: of the training.
        device: where to compute.
        pieces: of at most ``batch_size`` samples; taken a few before they are asked about.
        done: hears of each piece that was written.
    """
    taken: deque[Piece] = deque()

    def noted() -> Iterator[Piece]:
        for piece in pieces:
            taken.append(piece)
            yield piece

    for batch in recurring.batches(noted(), batch_size):
        piece = taken.popleft()
        _, start, stop = piece
        here = move_data_to_device(batch, torch.device(device))
        for said, own in zip(live.own(here), slots, strict=True):
            for part, values in parts(said).items():
                if part in own and own[part].lacks(piece):
                    own[part].write(piece, values[: stop - start].cpu())
        done(piece)
