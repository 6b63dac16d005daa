"""What one teacher said of all samples in all views, in files that are mapped into memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ensemble_kd.cache.formats import Bytes, format_named
from ensemble_kd.cache.manifest import INDEX, MANIFEST, DamagedError, Manifest, read_manifest
from ensemble_kd.cache.places import Places
from ensemble_kd.errors import UserError
from ensemble_kd.files import file_digest


class Record:
    """A finished folder. Sizes of the files are checked, their digests by ``Shelf.find``.

    ``index.npy`` holds the numbers of the samples, ``view-V-N.bin`` rows of one view in that order.
    A copy, or a pickled one, opens the files anew.

    Args:
        folder: where it lies.
        into_memory: read all of it now instead of mapping the files.

    Attributes:
        index: (n,) int64, ascending: the numbers of the samples.

    Raises:
        DamagedError: a file is missing, cut off or not readable as what it should be.
    """

    def __init__(self, folder: Path, into_memory: bool = False) -> None:
        self.folder = folder
        self.manifest = read_manifest(folder / MANIFEST)
        self.format = format_named(self.manifest.format)
        self._width = math.prod(self.manifest.shape)
        self._in_memory = into_memory
        self.index = _read_index(folder / INDEX, self.manifest.samples)
        self._places = Places(self.index, self.manifest.views, self._open(into_memory))

    @property
    def key(self) -> str:
        """What it was asked for by."""
        return self.manifest.key

    @property
    def described(self) -> Mapping[str, Any]:
        """What determined the outputs."""
        return self.manifest.described

    @property
    def samples(self) -> int:
        """How many samples."""
        return self.manifest.samples

    @property
    def views(self) -> int:
        """How many views of each sample."""
        return self.manifest.views

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one answer."""
        return self.manifest.shape

    def read(self, index: Tensor, view: Tensor) -> Tensor:
        """What the teacher said.

        Args:
            index: (b,) int64, numbers of samples.
            view: (b,) int64, which view of each.

        Returns:
            (b, *shape) float32, such as logits (b, c), on the CPU, in memory of their own.

        Raises:
            UserError: a sample or a view is not in the record.
        """
        places = self._places.of(index, view)
        if len(places) and places.min() < 0:
            raise self._absent(index.cpu().numpy()[places < 0], view.cpu().numpy())
        rows = self.format.decode(self._gather(places), self._width)
        return rows if len(self.shape) == 1 else rows.view(-1, *self.shape)

    def _gather(self, places: npt.NDArray[np.int64]) -> Bytes:
        """The rows (b, row_bytes) at places (b,), copied."""
        if len(self._shards) == 1:
            return self._shards[0].take(places, axis=0)
        shards, rows = np.divmod(places, self._shard_rows)
        first = int(shards[0]) if len(shards) else 0
        if (shards == first).all():
            return self._shards[first].take(rows, axis=0)
        # Batches in random order touch nearly as many shards as they have rows: one slice for each
        # row costs less than a tenth of one indexing for each shard.
        size = self.manifest.row_bytes
        slices = self._slices
        found = bytearray().join(
            [
                slices[shard][start : start + size]
                for shard, start in zip(shards.tolist(), (rows * size).tolist(), strict=True)
            ]
        )
        return np.frombuffer(found, np.uint8).reshape(len(places), size)

    def _open(self, into_memory: bool) -> int:
        """Map or read the shards; returns the distance of the places of one view and the next."""
        manifest, size = self.manifest, self.manifest.row_bytes
        mapped = [
            _map(self.folder / name, rows, size)
            for name, rows in manifest.files()
            if not into_memory
        ]
        if into_memory:
            whole = np.empty((manifest.views * manifest.samples, size), np.uint8)
            start = 0
            for name, rows in manifest.files():
                whole[start : start + rows] = _map(self.folder / name, rows, size)
                start += rows
            mapped = [whole]
        self._shards = mapped
        self._slices = [shard.reshape(-1).data for shard in mapped]
        self._shard_rows = manifest.shard_rows
        return manifest.samples if into_memory else manifest.shards_per_view * self._shard_rows

    def _absent(self, samples: npt.NDArray[np.int64], views: npt.NDArray[np.int64]) -> UserError:
        """What is wrong with a query of which these samples were not found."""
        wrong = (views < 0) | (views >= self.views)
        if wrong.any():
            return UserError(
                f"{self.folder}: expected a view in [0, {self.views}), got {views[wrong][0]}"
            )
        return UserError(
            f"{self.folder}: sample {samples[0]} is not among the {self.samples} samples kept "
            f"there, numbers {int(self.index[0])} to {int(self.index[-1])}"
        )

    def __reduce__(self) -> tuple[type[Record], tuple[Path, bool]]:
        return Record, (self.folder, self._in_memory)


def verify(folder: Path) -> None:
    """Hold all files of a record against its digests.

    Raises:
        DamagedError: a file is missing or was changed.
        UserError: a file could not be read.
    """
    manifest = Record(folder).manifest
    for name, expected in {INDEX: manifest.index, **digests(manifest)}.items():
        hold(folder / name, expected, file_digest(folder / name))


def digests(manifest: Manifest) -> dict[str, str]:
    """The digest of each shard of a finished record; empty text where the manifest has none."""
    return {name: manifest.shards.get(name, "") for name, _ in manifest.files()}


def hold(path: Path, expected: str, found: str) -> None:
    """Refuse a file with another digest than the manifest's.

    Raises:
        DamagedError: they differ.
    """
    if found != expected:
        raise DamagedError(
            f"{path}: wrong digest: expected {expected[:12] or 'one'}, got {found[:12]}: "
            "the file was changed or damaged"
        )


def _read_index(path: Path, samples: int) -> Tensor:
    """The numbers of the samples, without reading them: there may be millions."""
    try:
        with path.open("rb") as file:
            if np.lib.format.read_magic(file) != (1, 0):
                raise ValueError("expected version 1.0 of the format")
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            start = file.tell()
    except PermissionError as failure:
        raise UserError(f"{path}: could not be read: {failure.strerror}") from failure
    except (OSError, ValueError, EOFError) as failure:
        raise DamagedError(f"{path}: expected the numbers of the samples: {failure}") from failure
    if dtype != np.int64 or shape != (samples,):
        raise DamagedError(f"{path}: expected {samples} int64, got {shape} {dtype}")
    mapped = _map(path, 1, start + 8 * samples)
    return torch.from_numpy(mapped[0, start:].view(np.int64))


def _map(path: Path, rows: int, row_bytes: int) -> Bytes:
    """(rows, row_bytes) of a file, without reading it."""
    size = rows * row_bytes
    found = path.stat().st_size if path.is_file() else None
    if found != size:
        seen = "no file" if found is None else str(found)
        raise DamagedError(f"{path}: expected {size} bytes, found {seen}")
    # Unlike Python's mmap this keeps no file descriptor, of which a process has few.
    try:
        mapped = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
    except RuntimeError as failure:
        raise UserError(f"{path}: could not be mapped: {str(failure).splitlines()[0]}") from failure
    return mapped.numpy().reshape(rows, row_bytes)
