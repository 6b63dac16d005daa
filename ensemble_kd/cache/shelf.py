"""Records by the key of all that determined them: found, verified, locked, written."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from torch import Tensor

from ensemble_kd.cache.formats import Format
from ensemble_kd.cache.manifest import INDEX, MANIFEST, DamagedError, planned
from ensemble_kd.cache.record import Record, digests, hold
from ensemble_kd.cache.writer import Writer, expect_room, occupied
from ensemble_kd.errors import UserError
from ensemble_kd.files import file_digest
from ensemble_kd.store import KEY_LENGTH

UNFINISHED = ".unfinished"
LOCKS = ".locks"
SHARD_BYTES = 64 * 2**20


class Shelf:
    """A folder of records, shared by all runs that point at it.

    Args:
        root: where it lies; made when the first record is written.
        shard_bytes: no shard file is larger, unless a single row is.
    """

    def __init__(self, root: Path, shard_bytes: int = SHARD_BYTES) -> None:
        self.root = root
        self.shard_bytes = shard_bytes
        self._held: set[str] = set()

    def find(self, key: str, into_memory: bool = False) -> Record | None:
        """The record of a key, verified; None when there is none.

        Files are held against their digests once per process, and again when their size, time of
        change or place on the disk is another. A damaged record is reported, set aside under
        another name, and counts as none.

        Args:
            key: hex digest, at least 32 characters.
            into_memory: read all of it now instead of mapping the files.

        Raises:
            ValueError: ``key`` is no digest.
            UserError: the record could not be read.
        """
        folder = self.folder(key)
        try:
            identity = folder.stat().st_ino
        except OSError:
            return None
        try:
            record = Record(folder, into_memory)
            if record.key != key:
                raise DamagedError(f"{folder}: wrong key: expected {key}, got {record.key}")
            _hold_all(record)
        except DamagedError as damage:
            self._set_aside(folder, identity, damage)
            return None
        # When it was last read, for ``gc``; a shelf may be shared by those who cannot write to it.
        with suppress(OSError):
            os.utime(folder / MANIFEST)
        return record

    @contextmanager
    def locked(self, key: str, wait: bool = True) -> Iterator[None]:
        """Hold the only right to write a record; a second run waits here, then finds it.

        Args:
            key: of the record.
            wait: for another process that holds it.

        Raises:
            UserError: another process holds it and ``wait`` is false, or the root is not writable.
        """
        self._make()
        name = self.folder(key).name
        lock = FileLock(self.root / LOCKS / f"{name}.lock")
        try:
            lock.acquire(timeout=-1 if wait else 0)
        except Timeout as busy:
            raise UserError(f"{self.folder(key)}: another process is at work on it") from busy
        self._held.add(name)
        try:
            yield
        finally:
            self._held.discard(name)
            lock.release()

    def writing(
        self,
        key: str,
        described: Mapping[str, Any],
        index: Tensor,
        views: int,
        shape: tuple[int, ...],
        format: Format,
    ) -> Writer:
        """Begin a record, or go on with an unfinished one that was to hold the same.

        Args:
            key: hex digest, at least 32 characters; its lock must be held.
            described: what determines the outputs; JSON.
            index: (n,) int64, ascending: the numbers of the samples.
            views: how many of each sample.
            shape: of one answer, such as (c,) for logits.
            format: how they are kept.

        Raises:
            ValueError: an argument is out of range, the lock is not held or the record is there.
            UserError: the disk has too little space, before anything is written.
        """
        target = self.folder(key)
        if target.name not in self._held:
            raise ValueError("writing must be called inside of locked(key), got no lock")
        if target.exists():
            raise ValueError(f"key must be of a record that is not there, got {key}")
        plan, content = planned(key, described, index, views, shape, format, self.shard_bytes)
        return Writer(self.root / UNFINISHED / target.name, target, plan, content)

    def expect_room(self, sizes: Mapping[str, int]) -> None:
        """Make sure that records that are to be written fit on the disk together.

        Args:
            sizes: of each, in bytes, by key; what of it is there already counts.

        Raises:
            UserError: they do not.
        """
        began = {key: self.root / UNFINISHED / self.folder(key).name for key in sizes}
        needed = sum(max(0, size - occupied(began[key])) for key, size in sizes.items())
        self._make()
        expect_room(self.root, needed)

    def folder(self, key: str) -> Path:
        """Where the record of a key lies.

        Raises:
            ValueError: ``key`` is no digest.
        """
        if not re.fullmatch(rf"[0-9a-f]{{{KEY_LENGTH},}}", key):
            raise ValueError(f"key must be a hex digest of {KEY_LENGTH} or more, got {key!r}")
        return self.root / key[:KEY_LENGTH]

    def _set_aside(self, folder: Path, identity: int, damage: DamagedError) -> None:
        number = 1
        while (aside := folder.with_name(f"{folder.name}.damaged-{number}")).exists():
            number += 1
        try:
            # Another process may have set it aside, and a third one written it again.
            if folder.stat().st_ino != identity:
                return
            folder.rename(aside)
        except FileNotFoundError:
            return
        except OSError as failure:
            print(f"damaged: {damage}; not set aside: {failure.strerror}", file=sys.stderr)
            return
        print(f"damaged record set aside as {aside}: {damage}", file=sys.stderr)

    def _make(self) -> None:
        try:
            (self.root / LOCKS).mkdir(parents=True, exist_ok=True)
        except OSError as failure:
            raise UserError(
                f"{self.root}: expected a folder that can be written to: {failure.strerror}"
            ) from failure


def _hold_all(record: Record) -> None:
    manifest = record.manifest
    for name, expected in {INDEX: manifest.index, **digests(manifest)}.items():
        path = record.folder / name
        try:
            seen = path.stat()
            found = _digest_of(path, seen.st_ino, seen.st_size, seen.st_mtime_ns)
        except FileNotFoundError as failure:
            raise DamagedError(f"{path}: expected a file of the record, found none") from failure
        except OSError as failure:
            raise UserError(f"{path}: could not be read: {failure.strerror}") from failure
        hold(path, expected, found)


@cache
def _digest_of(path: Path, inode: int, size: int, changed: int) -> str:
    """Digest of a file that is known by its place, size and time of change."""
    return file_digest(path)
