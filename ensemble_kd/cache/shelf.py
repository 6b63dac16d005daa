"""Records by the key of all that determined them: found, verified, locked, written."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor

from ensemble_kd.cache.disk import expect_room, occupied
from ensemble_kd.cache.formats import Format
from ensemble_kd.cache.journal import at_work
from ensemble_kd.cache.manifest import INDEX, MANIFEST, DamagedError, planned
from ensemble_kd.cache.record import Record, digests, hold
from ensemble_kd.cache.writer import JOURNALS, Writer
from ensemble_kd.errors import UserError
from ensemble_kd.files import file_digest
from ensemble_kd.store.keyed import Keyed

SHARD_BYTES = 64 * 2**20


class Shelf:
    """A folder of records, shared by all runs that point at it.

    Args:
        root: where it lies; made when the first record is written.
        shard_bytes: no shard file is larger, unless a single row is.
    """

    def __init__(self, root: Path, shard_bytes: int = SHARD_BYTES) -> None:
        self.root = root
        self.keyed = Keyed(root, MANIFEST, "paths.store", lambda folder: at_work(folder / JOURNALS))
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
        """Hold the only right to begin, to finish or to remove a record; others wait here.

        Args:
            key: of the record.
            wait: for another process that holds it.

        Raises:
            UserError: another process holds it and ``wait`` is false, or the root is not writable.
        """
        with self.keyed.locked(key, wait):
            self._held.add(key)
            try:
                yield
            finally:
                self._held.discard(key)

    def writing(
        self,
        key: str,
        described: Mapping[str, Any],
        index: Tensor,
        views: int,
        shape: tuple[int, ...],
        format: Format,
    ) -> Writer:
        """Begin a record, or join in an unfinished one that is to hold the same.

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
        if key not in self._held:
            raise ValueError("writing must be called inside of locked(key), got no lock")
        if target.exists():
            raise ValueError(f"key must be of a record that is not there, got {key}")
        plan, content = planned(key, described, index, views, shape, format, self.shard_bytes)
        return Writer(self.keyed.unfinished(key), target, plan, content)

    def expect_room(self, sizes: Mapping[str, int]) -> None:
        """Make sure that records that are to be written fit on the disk together.

        Args:
            sizes: of each, in bytes, by key; what of it is there already counts.

        Raises:
            UserError: they do not.
        """
        began = {key: occupied(self.keyed.unfinished(key)) for key in sizes}
        needed = sum(max(0, size - began[key]) for key, size in sizes.items())
        self.keyed.make(self.root)
        expect_room(self.root, needed)

    def folder(self, key: str) -> Path:
        """Where the record of a key lies.

        Raises:
            ValueError: ``key`` is no digest.
        """
        return self.keyed.folder(key)

    def _set_aside(self, folder: Path, identity: int, damage: DamagedError) -> None:
        try:
            # Another process may have set it aside, and a third one written it again.
            if folder.stat().st_ino == identity:
                self.keyed.set_aside(folder, damage)
        except FileNotFoundError:
            return
        except UserError as refusal:  # it is not used, even so
            print(refusal, file=sys.stderr)


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
