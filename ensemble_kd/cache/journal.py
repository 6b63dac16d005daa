"""What was written of an unfinished record, and by whom."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from filelock import FileLock, Timeout


class Line(NamedTuple):
    """A piece that was written.

    Attributes:
        view: which view.
        start: position of the first sample in the index.
        stop: of the one after the last.
        digest: sha256 of the bytes, in hex.
    """

    view: int
    start: int
    stop: int
    digest: str


class Journal:
    """A folder with a file for each process that ever wrote.

    Nobody writes into another's file, so that half a line of one who was killed spoils none of a
    later one, and several machines with one file system need no lock to write.

    A process that is at work holds a lock beside its file, by which the others see that. The system
    gives it back when the process dies.

    Args:
        folder: of the journals; made by whoever begins the record.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._own = folder / uuid4().hex
        self._present = FileLock(self._own.with_suffix(".lock"))
        self._read: dict[str, int] = {}

    def open(self) -> None:
        """Be seen at work.

        Raises:
            OSError: the folder cannot be written to.
        """
        self._present.acquire()

    def close(self) -> None:
        """Be at work no longer."""
        self._present.release()

    def append(self, *lines: Line) -> None:
        """Note that pieces were written.

        Raises:
            OSError: the disk is full, or the folder has gone.
        """
        text = "".join(f"{' '.join(map(str, line))}\n" for line in lines).encode()
        with self._own.open("ab", buffering=0) as file:
            if file.write(text) != len(text):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def news(self) -> Iterator[Line]:
        """Whole lines of others that were not read before; numbers in them may be out of range."""
        with suppress(FileNotFoundError):  # somebody has finished the record
            for path in sorted(self.folder.iterdir()):
                if path.suffix or path == self._own or not path.is_file():
                    continue
                read = self._read.get(path.name, 0)
                with path.open("rb") as file:
                    file.seek(read)
                    whole, end, _ = file.read().rpartition(b"\n")
                self._read[path.name] = read + len(whole) + len(end)
                yield from filter(None, map(_line, whole.split(b"\n")))


def at_work(folder: Path) -> bool:
    """Whether some process has its journal in this folder open."""
    for path in folder.glob("*.lock"):
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        except OSError:  # a link or a folder, which nobody holds
            continue
        lock.release()
    return False


def _line(text: bytes) -> Line | None:
    try:
        view, start, stop, digest = text.decode().split(" ")
        return Line(int(view), int(start), int(stop), digest)
    except ValueError:
        return None
