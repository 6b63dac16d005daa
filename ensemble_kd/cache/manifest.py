"""What a record says of itself."""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ensemble_kd.cache.formats import Float32, Format, format_named
from ensemble_kd.errors import UserError
from ensemble_kd.plain_files import read_json

MANIFEST = "manifest.json"
INDEX = "index.npy"
SCHEMA = 2


class DamagedError(UserError):
    """A record whose files are not what its manifest says."""


@dataclass(frozen=True)
class Manifest:
    """The content of ``manifest.json``.

    Attributes:
        key: hex digest of ``described`` and whatever else names the record.
        described: what determines the outputs; JSON.
        samples: how many.
        views: how many of each sample.
        shape: of one answer, such as (c,) for logits.
        format: name of the format.
        shard_rows: rows per shard, but for the last of a view.
        index: sha256 of ``index.npy``.
        shards: sha256 of each shard, by file name; empty while the record is not finished.
    """

    key: str
    described: Mapping[str, Any]
    samples: int
    views: int
    shape: tuple[int, ...]
    format: str
    shard_rows: int
    index: str
    shards: Mapping[str, str] = field(default_factory=dict)

    @property
    def row_bytes(self) -> int:
        """Bytes per row."""
        return format_named(self.format).row_bytes(math.prod(self.shape))

    @property
    def size(self) -> int:
        """Bytes of all shards."""
        return self.samples * self.views * self.row_bytes

    @property
    def shards_per_view(self) -> int:
        """How many shards hold one view."""
        return math.ceil(self.samples / self.shard_rows)

    def files(self) -> Iterator[tuple[str, int]]:
        """Name and rows of each shard, by view, then by sample."""
        for view in range(self.views):
            for number in range(self.shards_per_view):
                rows = min(self.shard_rows, self.samples - number * self.shard_rows)
                yield shard_name(view, number), rows

    def finished(self, shards: Mapping[str, str]) -> Manifest:
        """The same with the digests of the shards."""
        return replace(self, shards=shards)

    def text(self) -> str:
        """As JSON."""
        content = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        said = {"schema": SCHEMA, **content}
        return json.dumps({**said, "digest": _digest(said)}, indent=2) + "\n"


def planned(
    key: str,
    described: Mapping[str, Any],
    index: Tensor,
    views: int,
    shape: tuple[int, ...],
    format: Format,
    shard_bytes: int,
) -> tuple[Manifest, bytes]:
    """The manifest of a record to be written and the content of its ``index.npy``.

    Raises:
        ValueError: an argument is out of range.
    """
    if index.dtype != torch.int64 or index.ndim != 1 or not len(index):
        raise ValueError(f"index must be (n,) int64, n > 0, got {tuple(index.shape)} {index.dtype}")
    numbers = np.ascontiguousarray(index.cpu().numpy())
    if numbers[0] < 0 or (np.diff(numbers) <= 0).any():
        raise ValueError("index must be ascending and >= 0, without repetition, got another order")
    if views < 1 or not shape or min(shape) < 1:
        raise ValueError(f"views and sizes must be > 0, got {views} and {shape}")
    if len(shape) > 1 and not isinstance(format, Float32):
        raise ValueError(f"format must be float32 for answers of shape {shape}, got {format.name}")
    try:
        plain = json.loads(json.dumps(dict(described), allow_nan=False))
    except (TypeError, ValueError) as failure:
        raise ValueError(f"described must be JSON, got {failure}") from failure
    file = io.BytesIO()
    np.save(file, numbers)
    content = file.getvalue()
    digest = hashlib.sha256(content).hexdigest()
    rows = max(1, min(shard_bytes // format.row_bytes(math.prod(shape)), len(numbers)))
    return Manifest(key, plain, len(numbers), views, shape, format.name, rows, digest), content


def read_manifest(path: Path) -> Manifest:
    """Read and check a manifest; its shards may be missing from it.

    Raises:
        DamagedError: there is none, or it is not what this version writes.
        UserError: the system does not let it be read.
    """
    try:
        said = read_json(path)
        if said.pop("digest") != _digest(said):
            raise ValueError("wrong digest: it was changed or damaged")
        if said.pop("schema") != SCHEMA:
            raise ValueError(f"schema must be {SCHEMA}")
        manifest = Manifest(**{**said, "shape": tuple(said["shape"])})
        sizes = (manifest.samples, manifest.views, manifest.shard_rows, *manifest.shape)
        if not manifest.shape or not all(type(size) is int and size > 0 for size in sizes):
            raise ValueError("sizes must be whole numbers > 0")
        texts = (manifest.key, manifest.format, manifest.index, *manifest.shards.values())
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("key, format and digests must be text")
        if not isinstance(manifest.described, dict):
            raise TypeError("described must be a mapping")
        format_named(manifest.format)
    except PermissionError as failure:
        raise UserError(f"{path}: could not be read: {failure.strerror}") from failure
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as failure:
        reason = " ".join(str(failure).split())
        raise DamagedError(f"{path}: expected the manifest of kept outputs: {reason}") from failure
    return manifest


def _digest(said: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def shard_name(view: int, number: int) -> str:
    """The file that holds the rows from ``number * shard_rows`` on of a view."""
    return f"view-{view:04d}-{number:05d}.bin"
