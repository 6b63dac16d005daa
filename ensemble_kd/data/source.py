"""What a source of data is, and the checks that every source runs on what it read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ensemble_kd.data.splits import LabelArray, RowArray, drawn
from ensemble_kd.errors import UserError
from ensemble_kd.types import UNLABELLED

Scale = float | Sequence[float]
"""One number, or one for each channel: for each place of the first axis of a sample."""

IdArray = npt.NDArray[Any]
"""(n,) int64 or text."""


class Samples(NamedTuple):
    """Inputs and their labels.

    Attributes:
        inputs: (n, ...) an array of uint8 or float32, ``Pictures``, which are read when they are
            needed, or ``Written``, of which the data makes tokens; bytes stand for [0, 1] in steps
            of 1/255. In a table (n, d), NaN stands for the mean of a column in the training split.
        labels: (n,) int64, all in [0, classes), or ``UNLABELLED`` in the training part. Of texts in
            words: (n, w), the class of each word, ``UNLABELLED`` behind the last one as well.
        ids: by which the user knows the samples, all different; None where only by row number.
    """

    inputs: Any
    labels: LabelArray
    ids: IdArray | None = None


class Parts(NamedTuple):
    """All that a source holds.

    Attributes:
        train: the samples to train on and, where there are none, to split those for test and
            validation from.
        test: the official test part, if there is one.
        classes: number of classes.
        names: of the classes, in their order; empty where they have none but their numbers.
        val: the official validation part, if there is one.
        unscaled: columns of a table that stay as they are where the training split's mean and std
            are taken.
        columns: of a table, for each input of a sample how it is made from the file's columns, as
            plain values.
    """

    train: Samples
    test: Samples | None
    classes: int
    names: tuple[str, ...] = ()
    val: Samples | None = None
    unscaled: Sequence[int] = ()
    columns: Sequence[Mapping[str, Any]] = ()

    def held(self) -> dict[str, Samples]:
        """The parts that there are, by their names here."""
        parts = {"train": self.train, "val": self.val, "test": self.test}
        return {name: samples for name, samples in parts.items() if samples is not None}

    def holding(self, held: Mapping[str, Samples]) -> Parts:
        """These parts with other samples, by the names of ``held``."""
        return self._replace(train=held["train"], val=held.get("val"), test=held.get("test"))


class Source(Protocol):
    """Where data comes from.

    Attributes:
        mean: what is subtracted from the inputs (in [0, 1] for images); None for that of each
            column in the training split, or for texts.
        std: what they are divided by afterwards, > 0; None likewise.
    """

    @property
    def mean(self) -> Scale | None: ...

    @property
    def std(self) -> Scale | None: ...

    def load(self) -> Parts:
        """Read everything.

        Raises:
            UserError: a file is missing, damaged or does not hold what it should.
        """
        ...


def checked(
    inputs: npt.NDArray[np.generic],
    labels: npt.NDArray[np.generic],
    where: str,
    classes: int | None = None,
    partly: bool = False,
) -> Samples:
    """Make sure that arrays can be learned from.

    Args:
        inputs: (n, ...) uint8 or any float.
        labels: (n,) integers.
        where: what the error message calls them, such as the file's path.
        classes: number of classes; None takes the largest label for the last class.
        partly: whether labels may be ``UNLABELLED``.

    Raises:
        UserError: on the first thing that is wrong.
    """
    if inputs.ndim < 2 or 0 in inputs.shape:
        raise UserError(
            f"{where}: expected inputs of shape (samples, features...) without an empty axis, "
            f"got {inputs.shape}"
        )
    if labels.ndim != 1 or len(labels) != len(inputs):
        raise UserError(
            f"{where}: expected one label for each of {len(inputs)} samples, "
            f"got labels of shape {labels.shape}"
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"{where}: labels must be integers, got {labels.dtype}")
    if int(labels.max()) > np.iinfo(np.int64).max:
        raise UserError(f"{where}: labels must fit into int64, got {labels.max()}")
    targets = labels.astype(np.int64)
    _check_range(targets, where, classes, partly)
    if inputs.dtype == np.uint8:
        return Samples(np.ascontiguousarray(inputs, np.uint8), targets)
    if not np.issubdtype(inputs.dtype, np.floating):
        raise UserError(
            f"{where}: inputs must be uint8 (bytes of images) or floating point, got {inputs.dtype}"
        )
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(inputs, np.float32)
    bad = ~np.isfinite(values).reshape(len(values), -1)
    if bad.any():
        first = int(bad.any(axis=1).argmax())
        raise UserError(
            f"{where}: inputs hold {int(bad.sum())} values that are NaN, infinite or beyond "
            f"float32, in {int(bad.any(axis=1).sum())} samples, first in sample {first}; "
            "remove or repair these samples"
        )
    return Samples(values, targets)


def _check_range(labels: LabelArray, where: str, classes: int | None, partly: bool) -> None:
    negative = (labels < 0) & ((labels != UNLABELLED) | (not partly))
    low, high = int(labels[negative].min(initial=0)), int(labels.max())
    if low < 0:
        wrong = negative
        raise UserError(
            f"{where}: labels must be >= 0, got {low} ({int(wrong.sum())} negative labels, "
            f"first in sample {int(wrong.argmax())})"
        )
    if classes is not None and high >= classes:
        wrong = labels >= classes
        raise UserError(
            f"{where}: labels must be in 0..{classes - 1}, got {high} ({int(wrong.sum())} labels "
            f"out of range, first in sample {int(wrong.argmax())})"
        )
    if classes is None and high < 1:
        got = "only class 0" if high == 0 else "no label"
        raise UserError(f"{where}: labels must name at least 2 classes, got {got}")


def existing(path: Path, remedy: str) -> Path:
    """The path of a file that is there and not empty.

    Args:
        path: where the file should be.
        remedy: how to get it, the end of the error message.

    Raises:
        UserError: it is not.
    """
    if not path.is_file():
        raise UserError(f"no file {path.absolute()}; {remedy}")
    if path.stat().st_size == 0:
        raise UserError(f"{path.absolute()} is empty; {remedy}")
    return path


def limited(labels: LabelArray, limit: int | None, stratified: bool, where: str) -> RowArray:
    """The rows of a subset of ``limit`` samples, ascending.

    Args:
        labels: (n,) the label of each row, or ``UNLABELLED``: such rows are a class of their own.
        limit: how many to keep; None keeps all.
        stratified: keep the shares of the classes and take the first rows of each; else simply the
            first rows.
        where: what the error message calls the data.

    Raises:
        UserError: there are fewer samples, or too few to keep one of each class.
    """
    if limit is None:
        return np.arange(len(labels))
    if not 1 <= limit <= len(labels):
        raise UserError(f"{where}: limit must be between 1 and {len(labels)}, got {limit}")
    if not stratified:
        return np.arange(limit)
    _, strata = np.unique(labels, return_inverse=True) if (labels < 0).any() else (None, labels)
    return drawn(strata, limit, where=f"{where}: limit")
