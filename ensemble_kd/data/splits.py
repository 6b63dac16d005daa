"""Stratified parts of a data set, each a function of labels and seed alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ensemble_kd.data.counter import absorb, derive, words
from ensemble_kd.errors import UserError
from ensemble_kd.types import UNLABELLED

LabelArray = npt.NDArray[np.int64]
RowArray = npt.NDArray[np.int64]


class Split(NamedTuple):
    """Row numbers of the parts, ascending and disjoint.

    Attributes:
        train: (n,) rows to train on.
        val: (n,) rows to choose by; empty when the source has a validation part of its own.
        test: (n,) rows to report on; empty when the source has a test part of its own.
    """

    train: RowArray
    val: RowArray
    test: RowArray


def strata(labels: LabelArray, classes: int) -> tuple[LabelArray, int]:
    """By what samples are divided, and how many such classes there are.

    Args:
        labels: (n,) classes, or (n, l) of samples that are sequences.
        classes: number of classes.

    Returns:
        (n,) the labels themselves, or for sequences, which are not stratified, 0 for each of which
        some place has a label, ``UNLABELLED`` for the others.
    """
    if labels.ndim == 1:
        return labels, classes
    return np.where((labels != UNLABELLED).any(axis=1), 0, UNLABELLED), 1


def apportion(counts: RowArray, total: int, spare: int = 0) -> RowArray:
    """Divide ``total`` seats among classes in proportion to their sizes, by largest remainders.

    Source: Hamilton's method, with at least one seat for each class.

    Args:
        counts: (c,) size of each class.
        total: seats to give, between c and ``(counts - spare).sum()``.
        spare: how many samples of each class get no seat.

    Returns:
        (c,) seats of each class, at least 1 and at most ``counts - spare``.
    """
    most = counts - spare
    if most.min() < 1 or not len(counts) <= total <= most.sum():
        raise ValueError(f"total must be in [{len(counts)}, {most.sum()}], got {total}")
    quota = counts * (total / counts.sum())
    seats: RowArray = np.clip(quota.astype(np.int64), 1, most)
    while seats.sum() < total:
        seats[np.where(seats < most, quota - seats, -np.inf).argmax()] += 1
    while seats.sum() > total:
        seats[np.where(seats > 1, quota - seats, np.inf).argmin()] -= 1
    return seats


def drawn(
    labels: LabelArray, total: int, seed: int | None = None, spare: int = 0, where: str = "data"
) -> RowArray:
    """Choose ``total`` positions, stratified by class, at least one of each.

    Args:
        labels: (n,) classes; every class up to the largest label must occur.
        total: how many to choose.
        seed: which ones; None takes the first of each class. With one seed, a smaller choice is
            contained in a larger one of the same classes as far as the proportions allow.
        spare: how many samples of each class must not be chosen.
        where: what the error message calls the number.

    Returns:
        (total,) positions, ascending.

    Raises:
        UserError: ``total`` is smaller than the number of classes or leaves too few behind, or a
            class is missing.
    """
    counts = np.bincount(labels)
    if counts.min() <= spare:
        rare = int(counts.argmin())
        raise UserError(f"{where}: class {rare} has {counts[rare]} samples, too few to choose from")
    most = int((counts - spare).sum())
    if not len(counts) <= total <= most:
        raise UserError(
            f"{where} must be between {len(counts)} (one of each class) and {most}, got {total}"
        )
    keys = np.arange(len(labels), dtype=np.uint64)
    if seed is not None:
        keys = absorb(words(seed), keys)
    order = np.lexsort((keys, labels))
    rank = np.empty_like(order)
    rank[order] = np.arange(len(labels)) - (counts.cumsum() - counts)[labels[order]]
    return np.flatnonzero(rank < apportion(counts, total, spare)[labels])


def split(
    labels: LabelArray,
    classes: int,
    val_share: float | None,
    test_share: float | None,
    seed: int,
    where: str = "data",
) -> Split:
    """Divide rows into training, validation and test, each class in proportion and in each part.

    Rows without a label are for training.

    Args:
        labels: (n,) classes in [0, classes), or ``UNLABELLED``.
        classes: number of classes.
        val_share: share of the rows for validation; None makes no validation part.
        test_share: share of the rows for test; None makes no test part.
        seed: which rows go where.
        where: what the error message calls the data.

    Raises:
        UserError: a class has too few samples.
    """
    made = {"validation": val_share, "test": test_share}
    names = ["training", *(name for name, share in made.items() if share is not None)]
    known = np.flatnonzero(labels != UNLABELLED)
    counts = np.bincount(labels[known], minlength=classes)
    if counts.min() < len(names):
        rare = int(counts.argmin())
        listed = (", ".join(names[:-1]), names[-1])
        few = f"class {rare} has" if classes > 1 else "labels are known of"
        raise UserError(
            f"{where}: {few} {counts[rare]} samples, at least {len(names)} are needed "
            f"to put one into each of {' and '.join(filter(None, listed))}"
        )
    everything, rest = np.arange(len(labels)), known
    val = test = known[:0]
    if test_share is not None:
        size = max(round(test_share * len(known)), classes)
        spare, part = len(names) - 1, f"{where}: the test part"
        test = known[drawn(labels[known], size, derive(seed, "test"), spare, part)]
        rest = np.setdiff1d(known, test)
    if val_share is not None:
        size = max(round(val_share * len(known)), classes)
        part = f"{where}: the validation part"
        val = rest[drawn(labels[rest], size, derive(seed, "val"), 1, part)]
    return Split(np.setdiff1d(everything, np.concatenate([val, test])), val, test)
