"""Classes from what a file says: by name, or by number."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ensemble_kd.data.columns import Cells, File, cell, column_of, whole_numbers
from ensemble_kd.data.splits import LabelArray
from ensemble_kd.errors import UserError, nearest
from ensemble_kd.types import UNLABELLED

UNKNOWN = (str(UNLABELLED), f"{UNLABELLED}.0")
"""How a label that is not known may be written, beside nothing at all."""


def label_of(value: Any) -> str | None:
    """A label as text; None where it is not known: nothing, NaN or -100."""
    said = cell(value)
    return None if said in UNKNOWN else said


def labels_of(file: File, name: str) -> list[str | None]:
    """The labels in a column as text, None where one is not known.

    Raises:
        UserError: there is no such column, or it holds neither text nor numbers.
    """
    return [label_of(value) for value in column_of(file, name, "data.source.label").to_pylist()]


def class_names(cells: Cells, given: Sequence[str] | None, where: str) -> tuple[str, ...]:
    """The classes of a training part, in their order.

    Args:
        cells: the labels, None where there is none.
        given: the names, in their order; None takes all labels there are: numbers in their order,
            else in that of the alphabet.
        where: what the error message calls the labels.

    Raises:
        UserError: there is only one class, or none.
    """
    found = sorted({label for label in cells if label is not None})
    numbers = whole_numbers(found)
    if numbers is not None:
        found = [str(number) for number in sorted(numbers.tolist())]
    names = tuple(found if given is None else given)
    if len(names) < 2:
        raise UserError(
            f"{where}: labels must name at least 2 classes, got {', '.join(names) or 'no label'}"
        )
    return names


def class_numbers(
    cells: Cells, names: Sequence[str], where: str, partly: bool, ordered: bool
) -> LabelArray:
    """The class of each label.

    Args:
        cells: the labels, None where there is none.
        names: of the classes.
        where: what the error message calls the labels.
        partly: whether some may be missing.
        ordered: whether the user said the order of the names: where labels are none of them but
            all are numbers, they count the names then, from 0.

    Returns:
        (n,), ``UNLABELLED`` where there is none.

    Raises:
        UserError: a label is no class, or one is missing that must not be.
    """
    numbers = {name: number for number, name in enumerate(names)}
    said = {label for label in cells if label is not None}
    unknown = said - set(numbers)
    counts = whole_numbers(list(names)) is None and whole_numbers(list(said)) is not None
    if unknown and counts and ordered:
        numbers = {str(number): number for number in range(len(names))}
        unknown = said - set(numbers)
    for row, label in enumerate(cells, 1):
        if label in unknown:
            hint = nearest(label or "", numbers)
            if counts and not ordered:
                hint = "; numbers count the classes where data.source.names gives their order"
            raise UserError(
                f"{where}: label {label!r} in row {row} is none of the {len(names)} classes of the "
                f"training part{hint[:200]}"
            )
        if label is None and not partly:
            raise UserError(
                f"{where}: expected a label in every row, got none in row {row}; only those of "
                "the training part may be missing"
            )
    return np.array([UNLABELLED if each is None else numbers[each] for each in cells], np.int64)


def checked_names(names: Sequence[str] | None) -> tuple[str, ...] | None:
    """Names that were given for classes.

    Raises:
        ValueError: they are fewer than two, or one occurs twice.
    """
    if names is None:
        return None
    if len(names) < 2 or len(set(names)) != len(names):
        raise ValueError(f"names must be at least two, all different, got {list(names)}")
    return tuple(names)


def bio(tags: Iterable[str]) -> tuple[str, ...]:
    """Tags in the usual order: ``O``, then for each kind of entity its ``B-`` and its ``I-``."""
    return tuple(sorted(set(tags), key=lambda tag: (tag != "O", tag.partition("-")[2] or tag, tag)))
