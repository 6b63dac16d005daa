"""Splits that are made once: written when a training begins, read ever after."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ensemble_kd.data.splits import LabelArray, Split, split
from ensemble_kd.errors import UserError
from ensemble_kd.files import write_whole
from ensemble_kd.paths import looked_up
from ensemble_kd.plain_files import read_json
from ensemble_kd.types import UNLABELLED

FORMAT = 1
"""Of the files. It is part of their names: splits of another format are made anew."""


@dataclass(frozen=True)
class StoredSplit:
    """A split as ``splits.split`` makes it, or as it made it when data was first trained on.

    The file is named by the SHA-256 of everything else that decides the split: labels, number of
    classes, shares and seed. It holds these, the row numbers and how many there are of each class.

    Args:
        folder: of the files; None makes the split each time.
        labels: see ``split``, like all that follow.
    """

    folder: Path | None
    labels: LabelArray
    classes: int
    val_share: float | None
    test_share: float | None
    seed: int
    where: str = "data"

    def rows(self) -> Split:
        """The split; nothing is written.

        Raises:
            UserError: it cannot be made, or the file is damaged.
        """
        path = self._path()
        if path is not None and path.is_file():
            return _read(path, self._said())
        shares = (self.val_share, self.test_share)
        return split(self.labels, self.classes, *shares, self.seed, self.where)

    def keep(self, rows: Split) -> None:
        """Write the split, if it is not there yet.

        Raises:
            UserError: it cannot be written.
        """
        path = self._path()
        if path is None or path.is_file():
            return
        written = {name: part.tolist() for name, part in rows._asdict().items()}
        counts = {n: _counts(self.labels[part], self.classes) for n, part in rows._asdict().items()}
        content = {**self._said(), "counts": counts, "rows": written, "digest": _digest(written)}
        write_whole(path, json.dumps(content) + "\n")

    def _path(self) -> Path | None:
        if self.folder is None:
            return None
        return looked_up(self.folder, "data.splits") / f"{_digest(self._said())}.json"

    def _said(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "seed": self.seed,
            "shares": {"val": self.val_share, "test": self.test_share},
            "samples": len(self.labels),
            "classes": self.classes,
            "labels": hashlib.sha256(np.ascontiguousarray(self.labels, "<i8").data).hexdigest(),
        }


def _read(path: Path, said: dict[str, Any]) -> Split:
    try:
        content = read_json(path)
        rows = content["rows"]
        good = {key: content[key] for key in said} == said and content["digest"] == _digest(rows)
        parts = Split(*(np.array(rows[name], np.int64) for name in Split._fields))
        every = np.concatenate(parts)
        good = good and np.array_equal(np.sort(every), np.arange(said["samples"]))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise _damaged(path) from error
    if not good:
        raise _damaged(path)
    return parts


def _damaged(path: Path) -> UserError:
    return UserError(f"{path}: this stored split is damaged; remove the file to have it made anew")


def _counts(labels: LabelArray, classes: int) -> dict[str, Any]:
    known = labels[labels != UNLABELLED]
    counts = np.bincount(known, minlength=classes).tolist()
    return {"of each class": counts, "unlabelled": len(labels) - len(known)}


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
