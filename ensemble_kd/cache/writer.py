"""Writing a record, in pieces, by any number of processes that may be killed at any moment."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ensemble_kd.cache.disk import expect_room, write_at
from ensemble_kd.cache.formats import Bytes
from ensemble_kd.cache.journal import Journal, Line
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

Numbers = npt.NDArray[np.int64]

JOURNALS = "journals"
CLAIMS = "claims"
RECORD = "record"


class Writer:
    """An unfinished record, to which others may be writing too.

    Beside the future folder of the record lie journals with the digest of each piece. A piece gets
    its line after its bytes. Lines that are there when the unfinished record is opened count only
    if their bytes are those of the line; half a line never does. Lines that others add later are
    believed until ``verify``.

    Args:
        folder: where the unfinished record lies, or will; the lock of its key must be held.
        target: where it belongs when it is finished.
        plan: the manifest, without digests of shards.
        index: content of ``index.npy``.

    Attributes:
        written: (views, samples) bool: the rows that are there, as far as is known here.

    Raises:
        UserError: what is missing does not fit on the disk, or the folder cannot be written to.
    """

    def __init__(self, folder: Path, target: Path, plan: Manifest, index: bytes) -> None:
        self.folder = folder
        self.plan = plan
        self.written = np.zeros((plan.views, plan.samples), bool)
        self._record = folder / RECORD
        self._target = target
        self._sure = np.zeros_like(self.written)
        self._heard: list[Line] = []
        self._journal = Journal(folder / JOURNALS)
        try:
            begun = self._same(index)
            if begun:
                self.refresh()
                self.verify()
            elif folder.exists():
                shutil.rmtree(folder)
            self._check_space()
            if not begun:
                self._start(index)
            self._journal.open()
        except OSError as failure:
            raise _failed(folder, failure) from failure

    @property
    def whole(self) -> bool:
        """Whether all rows are there, as far as is known here."""
        return bool(self.written.all())

    @property
    def finished(self) -> bool:
        """Whether somebody has finished the record."""
        return self._target.exists()

    def lacks(self, view: int, start: int, stop: int) -> bool:
        """Whether some row of a piece is not there, as far as is known here."""
        return not self.written[view, start:stop].all()

    def refresh(self) -> None:
        """Hear of what others have written in the meantime."""
        for line in self._journal.news():
            if self._fits(line.view, line.start, line.stop):
                self.written[line.view, line.start : line.stop] = True
                self._heard.append(line)
        if self.finished:
            self.written[:] = True

    def verify(self) -> None:
        """Hold what others have written against their journals, and forget what is not so."""
        for view, start, stop, expected in self._heard:
            if not self._sure[view, start:stop].all():
                self._sure[view, start:stop] |= self._digest(view, start, stop) == expected
        self._heard = []
        self.written = self._sure.copy()

    def close(self) -> None:
        """Be at work on it no longer; what was written stays."""
        self._journal.close()

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
        if not self._fits(view, start, stop):
            raise ValueError(
                f"a piece must lie within {plan.views} views of {plan.samples} samples, "
                f"got samples [{start}, {stop}) of view {view}"
            )
        data = np.ascontiguousarray(encoded)
        try:
            for path, offset, first, last in self._parts(view, start, stop):
                write_at(path, offset, data[first:last].reshape(-1).data)
            digest = hashlib.sha256(data.data).hexdigest()
            self._journal.append(Line(view, start, stop, digest))
        except OSError as failure:
            self._expect_finished(failure)
        self._sure[view, start:stop] = self.written[view, start:stop] = True

    def write_rows(self, places: Numbers, encoded: Bytes) -> None:
        """Write single rows, wherever they belong; they count when this returns.

        Args:
            places: (n,) int64, ``view * samples + position``.
            encoded: (n, row_bytes) uint8, from the format's ``encode``.

        Raises:
            UserError: the disk is full or the folder has gone.
        """
        lines = []
        try:
            for place, row in zip(places.tolist(), np.ascontiguousarray(encoded), strict=True):
                view, position = divmod(place, self.plan.samples)
                for path, offset, _, _ in self._parts(view, position, position + 1):
                    write_at(path, offset, row.data)
                digest = hashlib.sha256(row.data).hexdigest()
                lines.append(Line(view, position, position + 1, digest))
            self._journal.append(*lines)
        except OSError as failure:
            self._expect_finished(failure)
        for view, start, stop, _ in lines:
            self._sure[view, start:stop] = self.written[view, start:stop] = True

    def read_rows(self, places: Numbers) -> Bytes:
        """(n, row_bytes) uint8: rows that are written, by ``view * samples + position``.

        Raises:
            FileNotFoundError: the record was finished in the meantime.
        """
        rows = []
        for place in places.tolist():
            view, position = divmod(place, self.plan.samples)
            for path, offset, _, _ in self._parts(view, position, position + 1):
                with path.open("rb", buffering=0) as file:
                    file.seek(offset)
                    rows.append(file.read(self.plan.row_bytes))
        return np.frombuffer(b"".join(rows), np.uint8).reshape(-1, self.plan.row_bytes)

    def finish(self) -> None:
        """Have everything on the disk, then let the record appear under its name.

        The lock of its key must be held. What others have written is verified first.

        Raises:
            ValueError: something is missing.
            UserError: a file is shorter than what was written, or the folder cannot be renamed.
        """
        self.verify()
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
        self.close()
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
        (self.folder / JOURNALS).mkdir()
        (self.folder / CLAIMS).mkdir()
        (self._record / INDEX).write_bytes(index)
        # The last file: an unfinished record that has a manifest has all that goes before it.
        overwrite(self.folder / MANIFEST, self.plan.text().encode())

    def _expect_finished(self, failure: OSError) -> None:
        """A file may be gone because somebody else wrote the same and has finished the record."""
        if not (isinstance(failure, FileNotFoundError) and self.finished):
            raise _failed(self.folder, failure) from failure

    def _fits(self, view: int, start: int, stop: int) -> bool:
        return 0 <= view < self.plan.views and 0 <= start < stop <= self.plan.samples

    def _digest(self, view: int, start: int, stop: int) -> str | None:
        """Of the bytes of a piece; None where a file is missing."""
        said = hashlib.sha256()
        for path, offset, first, last in self._parts(view, start, stop):
            if not path.is_file():
                return None
            with path.open("rb") as file:
                file.seek(offset)
                said.update(file.read((last - first) * self.plan.row_bytes))
        return said.hexdigest()

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


def _failed(folder: Path, failure: OSError) -> UserError:
    return UserError(
        f"{folder}: outputs could not be kept: {failure.strerror or failure}; what was written "
        "stays, and the same command goes on from there"
    )
