"""Sharing out the work on unfinished records among all processes that are at work on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from filelock import FileLock, Timeout

from ensemble_kd.cache.writer import CLAIMS, Writer
from ensemble_kd.errors import UserError

BLOCKS = 256
"""Into how many blocks the work is cut, unless it has fewer pieces: enough for many workers, and
few enough that taking one costs nothing beside the work on it."""

Piece = tuple[int, int, int]
"""View, and the first sample and the one after the last."""


class Shares:
    """Some unfinished records of the same samples and views, written together.

    The pieces are cut into blocks of consecutive ones. Whoever works on a block holds its lock in
    each record that lacks something of it, which the system gives back when the process dies. What
    is written depends on nobody's claim: two who wrote the same piece would write the same bytes.

    Args:
        writers: one of each record, n > 0.
        chunk: samples of a piece, > 0.

    Attributes:
        written: about which share of all rows is there, as far as is known here.
    """

    def __init__(self, writers: Sequence[Writer], chunk: int) -> None:
        self.writers = tuple(writers)
        plan = writers[0].plan
        self._pieces: list[Piece] = [
            (view, start, min(start + chunk, plan.samples))
            for view in range(plan.views)
            for start in range(0, plan.samples, chunk)
        ]
        self._block = -(-len(self._pieces) // BLOCKS)
        self._held: dict[int, tuple[ExitStack, set[Piece]]] = {}
        self._whose: dict[Piece, int] = {}
        self.written = self._written()

    @property
    def whole(self) -> bool:
        """Whether all rows are there, as far as is known here."""
        return all(writer.whole for writer in self.writers)

    def refresh(self) -> None:
        """Hear of what others have written in the meantime."""
        for writer in self.writers:
            writer.refresh()
        self.written = self._written()

    def claimed(self) -> Iterator[Piece]:
        """Pieces that some record lacks, of blocks that nobody else works on, in order.

        A block is taken when its first piece is asked for, and given back when ``done`` has heard
        of each of its pieces. What others work on is left out.

        Raises:
            UserError: the file system gives no locks.
        """
        for number in range(-(-len(self._pieces) // self._block)):
            pieces = self._pieces[number * self._block : (number + 1) * self._block]
            if number in self._held or not self._lacking(pieces):
                continue
            locks = self._locks(number, pieces)
            if locks is None:
                continue
            # Whoever had it before may have written some of them.
            self.refresh()
            lacking = self._lacking(pieces)
            if not lacking:
                locks.close()
                continue
            self._held[number] = locks, set(lacking)
            self._whose |= dict.fromkeys(lacking, number)
            yield from lacking

    def done(self, piece: Piece) -> None:
        """Give a block back, if this was the last of its pieces."""
        number = self._whose.pop(piece)
        locks, rest = self._held[number]
        rest.discard(piece)
        self.written = min(1.0, self.written + 1 / len(self._pieces))
        if not rest:
            del self._held[number]
            locks.close()

    def close(self) -> None:
        """Give all blocks back, and be at work no longer."""
        for locks, _ in self._held.values():
            locks.close()
        self._held, self._whose = {}, {}
        for writer in self.writers:
            writer.close()

    def _written(self) -> float:
        return min(float(writer.written.mean()) for writer in self.writers)

    def _lacking(self, pieces: Sequence[Piece]) -> list[Piece]:
        return [piece for piece in pieces if any(each.lacks(*piece) for each in self.writers)]

    def _locks(self, number: int, pieces: Sequence[Piece]) -> ExitStack | None:
        """The locks of a block; None where somebody else works on it."""
        with ExitStack() as held:
            for writer in self.writers:
                if not any(writer.lacks(*piece) for piece in pieces):
                    continue
                if writer.finished:
                    return None  # a lock would make its folder anew
                lock = FileLock(writer.folder / CLAIMS / f"{number}.lock")
                try:
                    lock.acquire(timeout=0)
                except Timeout:
                    return None
                except OSError as failure:
                    raise _unlocked(writer.folder, failure) from failure
                held.callback(lock.release)
            return held.pop_all()


def _unlocked(folder: Path, failure: OSError) -> UserError:
    return UserError(f"{folder}: could not be locked: {failure.strerror or failure}")
