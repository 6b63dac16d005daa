"""The files with copies of replicas in a folder: written whole, and read with care."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ensemble_kd.errors import UserError
from ensemble_kd.files import overwrite
from ensemble_kd.strategies.exchange import Copy, State, on_cpu

NAME = re.compile(r"replica-(\d{1,4})\.step-(\d{10})(\.final)?\.([0-9a-f]{32})\.safetensors")
KEPT = 2
"""Copies that each replica leaves in the folder: one may be read while the next is written, and a
replica that waits for the same exchange must find it when the other has gone on to the next."""


class Found(NamedTuple):
    """A file with a copy, as its name says."""

    path: Path
    step: int
    final: bool


class Published:
    """The copies in a folder.

    The name of a file says whose copy it is, after how many steps, whether it is the last one, and
    the sha256 of the bytes. A file that does not hold what its name says, or no finite weights of
    the right shapes, is ignored with one line.

    Args:
        folder: where they lie.
        expected: a state of each replica, for names, shapes and types.
    """

    def __init__(self, folder: Path, expected: Sequence[State]) -> None:
        self.folder = folder
        self._expected = expected
        self._ignored: set[str] = set()

    def of(self, number: int) -> list[Found]:
        """The copies of a replica that were not found to be damaged, by step.

        Raises:
            OSError: the folder cannot be read.
        """
        found = []
        for name in os.listdir(self.folder):
            match = NAME.fullmatch(name)
            if match and int(match[1]) == number and name not in self._ignored:
                found.append(Found(self.folder / name, int(match[2]), match[3] is not None))
        return sorted(found, key=lambda file: (file.step, file.final))

    def read(
        self, number: int, step: int, held: int, late: bool = False
    ) -> tuple[Copy, int] | None:
        """The copy of this very step, else the newest that is newer than the one held.

        Args:
            number: of the replica.
            step: of the one that reads.
            held: the step of the copy that it holds.
            late: take one of an earlier step, too, though it is not the replica's last.

        Returns:
            The copy and the bytes of its file; None if there is none.

        Raises:
            OSError: the folder cannot be read.
        """
        newer = [file for file in self.of(number) if file.step > held]
        files = [file for file in newer if late or file.step >= step or file.final]
        for file in sorted(files, key=lambda file: (file.step != step, -file.step)):
            read = self._read(file, self._expected[number])
            if read is not None:
                state, size = read
                return Copy(number, file.step, state), size
        return None

    def _read(self, file: Found, expected: State) -> tuple[State, int] | None:
        try:
            return _verified(file.path, expected)
        except FileNotFoundError:
            return None  # its owner has put a newer one in its place
        except (UserError, OSError) as damage:
            self._ignored.add(file.path.name)
            say(f"{file.path} is ignored: {damage}")
            return None

    def write(self, number: int, step: int, state: State, final: bool) -> int:
        """Publish a copy, and remove those of the same replica that it makes useless.

        Returns:
            The bytes of the file.

        Raises:
            OSError: the folder cannot be written.
        """
        from safetensors.torch import save

        data = save(on_cpu(state))
        digest = hashlib.sha256(data).hexdigest()[:32]
        last = ".final" if final else ""
        path = self.folder / f"replica-{number}.step-{step:010d}{last}.{digest}.safetensors"
        overwrite(path, data)
        others = [file for file in self.of(number) if file.path != path]
        kept = [file for file in others if file.step != step][-KEPT + 1 :]
        for file in set(others) - set(kept):
            file.path.unlink(missing_ok=True)
        return len(data)

    def withdraw(self, number: int, everything: bool) -> None:
        """Remove what a replica was writing when it was killed, or all that it published.

        Raises:
            OSError: the folder cannot be written.
        """
        for unfinished in self.folder.glob(f".replica-{number}.*"):
            unfinished.unlink(missing_ok=True)
        for old in self.of(number) if everything else ():
            old.path.unlink(missing_ok=True)


def say(line: str) -> None:
    """Print a line for whoever watches; that of the stage was begun and is not at its end."""
    print(f"\n{line}", file=sys.stderr, flush=True)


def _verified(path: Path, expected: State) -> tuple[State, int]:
    """The state in a file, and the bytes of the file.

    Raises:
        OSError: it cannot be read.
        UserError: it does not hold what its name says, or nothing that fits.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    # Neither through a link nor from a pipe, which would never end.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with open(os.open(path, flags), "rb") as file:
        about = os.fstat(file.fileno())
        most = sum(tensor.nbytes + 1024 for tensor in expected.values()) + 4096
        if not stat.S_ISREG(about.st_mode) or about.st_size > most:
            raise UserError(f"expected a file of at most {most} bytes")
        data = file.read()
    if hashlib.sha256(data).hexdigest()[:32] != path.name.split(".")[-2]:
        raise UserError("it is damaged: its bytes have another digest than its name says")
    try:
        state = load(data)
    except (SafetensorError, ValueError, KeyError) as failure:
        raise UserError("expected safetensors, got something else") from failure
    if {k: (v.shape, v.dtype) for k, v in state.items()} != {
        k: (v.shape, v.dtype) for k, v in expected.items()
    }:
        raise UserError("its weights have other names, shapes or types")
    if not all(bool(v.isfinite().all()) for v in state.values() if v.is_floating_point()):
        raise UserError("its weights are not finite")
    return state, len(data)
