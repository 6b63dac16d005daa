"""A folder of folders by key: found, locked, set aside when damaged, removed without a trace."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from ensemble_kd.errors import UserError

KEY_LENGTH = 32
"""Hex characters of the digest that name a folder."""

PATIENCE = 2.0
"""Seconds to wait for another process before that is worth a word."""

UNFINISHED = ".unfinished"
LOCKS = ".locks"
REMOVED = ".removed"

Kind = Literal["whole", "unfinished", "damaged"]


@dataclass(frozen=True)
class Entry:
    """A folder that lies among the others.

    Attributes:
        kind: a ``whole`` one, one that is ``unfinished``, or what was set aside as ``damaged``.
        folder: where it lies.
        size: bytes of its files.
        used: when it was last read, or else written to; seconds since 1970.
    """

    kind: Kind
    folder: Path
    size: int
    used: float


class Keyed:
    """A folder of folders that are named by digests, shared by all runs that point at it.

    Args:
        root: where it lies; made when the first folder is written.
        marker: the file whose time of change says when a folder was last read.
        key: the setting that names the root, for messages.
        busy: whether processes that hold no lock on it are at work in a folder.
    """

    def __init__(
        self,
        root: Path,
        marker: str,
        key: str,
        busy: Callable[[Path], bool] = lambda folder: False,
    ) -> None:
        self.root = root
        self.marker = marker
        self.key = key
        self._busy = busy

    def folder(self, digest: str) -> Path:
        """Where what belongs to a digest lies, if it is there.

        Raises:
            ValueError: it is no digest.
        """
        if not re.fullmatch(rf"[0-9a-f]{{{KEY_LENGTH},}}", digest):
            raise ValueError(f"expected a hex digest of {KEY_LENGTH} or more, got {digest!r}")
        return self.root / digest[:KEY_LENGTH]

    def unfinished(self, digest: str) -> Path:
        """Where it lies until it is whole.

        Raises:
            UserError: a link leads elsewhere.
        """
        folder = self.root / UNFINISHED / self.folder(digest).name
        self._expect_inside(folder)
        return folder

    @contextmanager
    def locked(
        self, digest: str, wait: bool = True, waiting: Callable[[], None] = lambda: None
    ) -> Iterator[None]:
        """Hold the only right to write what belongs to a digest; others wait here, then find it.

        Args:
            digest: in hex.
            wait: for another process that holds it.
            waiting: called once, where that takes longer than a moment.

        Raises:
            UserError: another process holds it and ``wait`` is false, or the root is not writable.
        """
        self.make(self.root / LOCKS)
        folder = self.folder(digest)
        lock = FileLock(self.root / LOCKS / f"{folder.name}.lock")
        try:
            try:
                lock.acquire(timeout=PATIENCE if wait else 0)
            except Timeout as busy:
                if not wait:
                    raise UserError(f"{folder}: another process is at work on it") from busy
                waiting()
                lock.acquire()
        except OSError as failure:
            raise UserError(
                f"{folder}: could not be locked: {failure.strerror or failure}"
            ) from failure
        try:
            yield
        finally:
            lock.release()

    def set_aside(self, folder: Path, damage: Exception) -> None:
        """Give a damaged folder another name, and say so; its lock must be held."""
        number = 1
        while (aside := folder.with_name(f"{folder.name}.damaged-{number}")).exists():
            number += 1
        try:
            folder.rename(aside)
        except OSError as failure:
            raise UserError(
                f"{folder}: damaged, and cannot be set aside: {failure.strerror}: {damage}"
            ) from failure
        print(f"damaged, set aside as {aside}: {damage}", file=sys.stderr)

    def entries(self) -> list[Entry]:
        """All that lies here: whole folders, then unfinished, then damaged ones, by name.

        Raises:
            UserError: the folder cannot be read.
        """
        found: list[tuple[Kind, Path]] = [
            ("damaged" if ".damaged-" in folder.name else "whole", folder)
            for folder in _folders(self.root)
        ]
        # In the second lies what somebody who removed something and was killed has left.
        inner: list[tuple[Kind, str]] = [("unfinished", UNFINISHED), ("damaged", REMOVED)]
        for kind, name in inner:
            if not (self.root / name).is_symlink():
                found += [(kind, folder) for folder in _folders(self.root / name)]
        order: list[Kind] = ["whole", "unfinished", "damaged"]
        found.sort(key=lambda entry: (order.index(entry[0]), entry[1].name))
        return [self._entry(kind, folder) for kind, folder in found]

    def discard(self, entry: Entry, still: Callable[[Entry], bool] = lambda entry: True) -> None:
        """Remove a folder, unless somebody is at work on it.

        Args:
            entry: from ``entries``.
            still: looked at again under the lock: whether it is still to go.

        Raises:
            UserError: another process is at work on it, or it cannot be removed.
        """
        with self.locked(entry.folder.name[:KEY_LENGTH], wait=False):
            if not still(self._entry(entry.kind, entry.folder)):
                raise UserError(f"{entry.folder}: was used just now")
            if self._busy(entry.folder):
                raise UserError(f"{entry.folder}: another process is at work on it")
            # Nobody may find half of it.
            gone = self.root / REMOVED / entry.folder.name
            self.make(gone.parent)
            try:
                if gone != entry.folder:
                    shutil.rmtree(gone, ignore_errors=True)
                    entry.folder.rename(gone)
                shutil.rmtree(gone)
            except OSError as failure:
                raise UserError(
                    f"{entry.folder}: could not be removed: {failure.strerror or failure}"
                ) from failure

    def make(self, folder: Path) -> None:
        """Make a folder below the root.

        Raises:
            UserError: the file system refuses, or a link leads elsewhere.
        """
        self._expect_inside(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as failure:
            raise UserError(
                f"{self.key}: expected a folder that can be written, got {self.root}: "
                f"{failure.strerror}"
            ) from failure

    def _expect_inside(self, folder: Path) -> None:
        for inner in (folder, *folder.parents):
            if self.root in inner.parents and inner.is_symlink():
                raise UserError(f"{inner}: expected a folder, got a link, which leads elsewhere")

    def _entry(self, kind: Kind, folder: Path) -> Entry:
        size, latest, read = 0, 0.0, None
        for path in [folder, *folder.rglob("*")]:
            try:
                seen = path.stat()
            except OSError:
                continue  # somebody works here
            latest = max(latest, seen.st_mtime)
            if path.is_file():
                size += seen.st_size
                if path.name == self.marker and kind == "whole":
                    read = seen.st_mtime
        return Entry(kind, folder, size, latest if read is None else read)


def _folders(root: Path) -> list[Path]:
    """The folders of keys, and what was set aside, without those that lie elsewhere."""
    named = re.compile(rf"[0-9a-f]{{{KEY_LENGTH}}}(\.damaged-\d+)?")
    try:
        return [
            path
            for path in root.iterdir()
            if named.fullmatch(path.name) and path.is_dir() and not path.is_symlink()
        ]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as failure:
        raise UserError(f"{root}: could not be read: {failure.strerror}") from failure
