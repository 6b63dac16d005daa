"""Writing a record, in pieces and in any order, by processes that may be killed at any moment."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np

from ensemble_kd.cache.formats import Bytes
from ensemble_kd.cache.manifest import (
    INDEX,
    MANIFEST,
    DamagedError,
    Manifest,
    read_manifest,
    shard_name,
)
from ensemble_kd.errors import UserError
from ensemble_kd.files import file_digest, flush, overwrite

JOURNAL = "journal"
RECORD = "record"


class Writer:
    """An unfinished record.

    Beside the future folder of the record lies a journal with the digest of each piece that was
    written. It gets its line after the bytes of the piece; when an unfinished record is opened
    again, pieces whose bytes are not those of their line are forgotten, and so is half a line.

    Args:
        folder: where the unfinished record lies, or will.
        target: where it belongs when it is finished.
        plan: the manifest, without digests of shards.
        index: content of ``index.npy``.

    Raises:
        UserError: what is missing does not fit on the disk, or the folder cannot be written to.
    """

    def __init__(self, folder: Path, target: Path, plan: Manifest, index: bytes) -> None:
        self.folder = folder
        self.plan = plan
        self.written = np.zeros((plan.views, plan.samples), bool)
        self._record = folder / RECORD
        self._target = target
        try:
            begun = self._same(index)
            if begun:
                self._resume()
            elif folder.exists():
                shutil.rmtree(folder)
            self._check_space()
            if not begun:
                self._start(index)
        except OSError as failure:
            raise _failed(folder, failure) from failure

    def missing(self, chunk: int) -> list[tuple[int, int, int]]:
        """View, start and stop of what is to be written, in order.

        Pieces start at multiples of ``chunk``, whatever was interrupted: what a network says may
        depend on which samples it hears together.

        Args:
            chunk: samples per piece, > 0; the last one of a view may have fewer.

        Raises:
            ValueError: ``chunk`` is out of range.
        """
        if chunk < 1:
            raise ValueError(f"chunk must be a number of samples > 0, got {chunk}")
        starts = np.arange(0, self.plan.samples, chunk)
        whole = np.logical_and.reduceat(self.written, starts, axis=1)
        return [
            (int(view), int(starts[piece]), min(int(starts[piece]) + chunk, self.plan.samples))
            for view, piece in np.argwhere(~whole)
        ]

    def write(self, view: int, start: int, encoded: Bytes) -> None:
        """Write a piece; it counts when this returns.

        Args:
            view: which view.
            start: position of the first sample in the index.
            encoded: (n, row_bytes) uint8, from the format's ``encode``.

        Raises:
            ValueError: the piece does not lie within the record.
            UserError: the disk is full or the folder has gone.
        """
        plan = self.plan
        if encoded.dtype != np.uint8 or encoded.ndim != 2 or encoded.shape[1] != plan.row_bytes:
            raise ValueError(
                f"encoded must be (n, {plan.row_bytes}) uint8, got {encoded.shape} {encoded.dtype}"
            )
        stop = start + len(encoded)
        if not (0 <= view < plan.views and 0 <= start < stop <= plan.samples):
            raise ValueError(
                f"a piece must lie within {plan.views} views of {plan.samples} samples, "
                f"got samples [{start}, {stop}) of view {view}"
            )
        data = np.ascontiguousarray(encoded)
        try:
            for path, offset, first, last in self._parts(view, start, stop):
                _write_at(path, offset, data[first:last].reshape(-1).data)
            line = f"{view} {start} {stop} {hashlib.sha256(data.data).hexdigest()}\n"
            with (self.folder / JOURNAL).open("ab", buffering=0) as journal:
                journal.write(line.encode())
        except OSError as failure:
            raise _failed(self.folder, failure) from failure
        self.written[view, start:stop] = True

    def finish(self) -> None:
        """Have everything on the disk, then let the record appear under its name.

        Raises:
            ValueError: something is missing.
            UserError: a file is shorter than what was written, or the folder cannot be renamed.
        """
        missing = int(self.written.size - self.written.sum())
        if missing:
            raise ValueError(
                f"all {self.written.size} rows must be written before finish, {missing} are missing"
            )
        try:
            for name, rows in self.plan.files():
                if (self._record / name).stat().st_size != rows * self.plan.row_bytes:
                    raise DamagedError(f"{self._record / name}: changed while it was written")
            shards = {name: file_digest(self._record / name) for name, _ in self.plan.files()}
            (self._record / MANIFEST).write_text(self.plan.finished(shards).text())
            for name in (*shards, INDEX, MANIFEST, "."):
                flush(self._record / name)
            self._record.rename(self._target)
            flush(self._target.parent)
        except OSError as failure:
            raise _failed(self.folder, failure) from failure
        shutil.rmtree(self.folder, ignore_errors=True)

    def _same(self, index: bytes) -> bool:
        """Whether the folder holds the beginning of this very record."""
        try:
            return (
                read_manifest(self.folder / MANIFEST) == self.plan
                and (self._record / INDEX).read_bytes() == index
            )
        except (DamagedError, FileNotFoundError):
            return False

    def _start(self, index: bytes) -> None:
        self._record.mkdir(parents=True)
        (self._record / INDEX).write_bytes(index)
        # The last file: an unfinished record that has a manifest has all that goes before it.
        overwrite(self.folder / MANIFEST, self.plan.text().encode())

    def _resume(self) -> None:
        """Believe the lines of the journal whose bytes are there, and forget the others."""
        path = self.folder / JOURNAL
        text = path.read_bytes() if path.is_file() else b""
        kept = [line for line in text.splitlines(keepends=True) if self._holds(line)]
        overwrite(path, b"".join(kept))

    def _holds(self, line: bytes) -> bool:
        try:
            view, start, stop = map(int, line.split()[:3])
            expected = line.decode().split()[3]
        except (ValueError, IndexError):
            return False
        plan = self.plan
        if not (0 <= view < plan.views and 0 <= start < stop <= plan.samples):
            return False
        said = hashlib.sha256()
        for path, offset, first, last in self._parts(view, start, stop):
            if not path.is_file():
                return False
            with path.open("rb") as file:
                file.seek(offset)
                said.update(file.read((last - first) * plan.row_bytes))
        if not line.endswith(b"\n") or said.hexdigest() != expected:
            return False
        self.written[view, start:stop] = True
        return True

    def _parts(self, view: int, start: int, stop: int) -> list[tuple[Path, int, int, int]]:
        """File, offset in bytes, and which rows of the piece, for each shard of a piece."""
        parts = []
        size, at = self.plan.shard_rows, start
        while at < stop:
            number, row = divmod(at, size)
            end = min(stop, (number + 1) * size)
            path = self._record / shard_name(view, number)
            parts.append((path, row * self.plan.row_bytes, at - start, end - start))
            at = end
        return parts

    def _check_space(self) -> None:
        missing = int(self.written.size - self.written.sum())
        expect_room(self._target.parent, missing * self.plan.row_bytes + 8 * self.plan.samples)


def expect_room(root: Path, needed: int) -> None:
    """Make sure that a disk has so many bytes left.

    Raises:
        UserError: it has not.
    """
    free = shutil.disk_usage(root).free
    if needed > free:
        raise UserError(
            f"{root}: the outputs to be kept take {megabytes(needed)}, but the disk has "
            f"{megabytes(free)} left: free some, keep fewer views, choose a smaller cache.format, "
            "or another folder"
        )


def megabytes(size: int) -> str:
    """A size to be read by people, such as ``1,234.5 MB``; small ones in bytes."""
    return f"{size / 1e6:,.1f} MB" if size >= 10**5 else f"{size:,} bytes"


def occupied(folder: Path) -> int:
    """Bytes that the files in a folder take on the disk; none where there is no folder."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def _write_at(path: Path, offset: int, data: memoryview) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        while data:
            done = os.pwrite(descriptor, data, offset)
            data, offset = data[done:], offset + done
    finally:
        os.close(descriptor)


def _failed(folder: Path, failure: OSError) -> UserError:
    return UserError(
        f"{folder}: outputs could not be kept: {failure.strerror or failure}; what was written "
        "stays, and the same command goes on from there"
    )
