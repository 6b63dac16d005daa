"""Classes from what a file says: by name, or by number."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from ensemble_kd.data.columns import Cells, whole_numbers
from ensemble_kd.data.splits import LabelArray
from ensemble_kd.errors import UserError, nearest
from ensemble_kd.types import UNLABELLED


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
    found = sorted({cell for cell in cells if cell is not None})
    numbers = whole_numbers(found)
    if numbers is not None:
        found = [str(number) for number in sorted(numbers.tolist())]
    names = tuple(found if given is None else given)
    if len(names) < 2:
        raise UserError(
            f"{where}: labels must name at least 2 classes, got {', '.join(names) or 'no label'}"
        )
    return names


def class_numbers(cells: Cells, names: Sequence[str], where: str, partly: bool) -> LabelArray:
    """The class of each label.

    Args:
        cells: the labels, None where there is none.
        names: of the classes. Where labels are none of these but all are numbers, they count the
            names, from 0.
        where: what the error message calls the labels.
        partly: whether some may be missing.

    Returns:
        (n,), ``UNLABELLED`` where there is none.

    Raises:
        UserError: a label is no class, or one is missing that must not be.
    """
    numbers = {name: number for number, name in enumerate(names)}
    said = {cell for cell in cells if cell is not None}
    unknown = said - set(numbers)
    if unknown:
        counted = [str(number) for number in range(len(names))]
        if whole_numbers(list(names)) is None and whole_numbers(list(said)) is not None:
            numbers = {name: number for number, name in enumerate(counted)}
            unknown = said - set(numbers)
    for row, cell in enumerate(cells, 1):
        if cell in unknown:
            hint = nearest(cell or "", numbers)
            raise UserError(
                f"{where}: label {cell!r} in row {row} is none of the {len(names)} classes of the "
                f"training part{hint[:200]}"
            )
        if cell is None and not partly:
            raise UserError(
                f"{where}: expected a label in every row, got none in row {row}; only those of "
                "the training part may be missing"
            )
    return np.array([UNLABELLED if cell is None else numbers[cell] for cell in cells], np.int64)


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
