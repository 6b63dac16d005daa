"""Inputs from the columns of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from ensemble_kd.data.columns import Cells, File, cells, column_of
from ensemble_kd.errors import UserError

Encoding = Literal["onehot", "codes"]
Missing = Literal["refuse", "mean"]

MOST = 256
"""Values of a category for each of which there may be a column of its own."""

EMPTY = ("", "NA", "N/A", "#N/A", "NaN", "nan", "null", "NULL", "None")
"""What stands for no number in a column of numbers."""

NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"

KEY = "data.source.features"


class Column(NamedTuple):
    """What became of a column.

    Attributes:
        values: (n, k) float32 of each part, NaN where there is nothing.
        described: k times, how these inputs are made: ``column``, its name; ``is``, the value for
            which a one stands; ``codes``, the values whose positions are meant.
    """

    values: Mapping[str, npt.NDArray[np.float32]]
    described: Sequence[Mapping[str, Any]]


def feature(
    files: Mapping[str, File],
    name: str,
    categorical: bool,
    encoding: Encoding = "onehot",
    missing: Missing = "refuse",
) -> Column:
    """The inputs that a column becomes.

    A column of which all cells of the training part are numbers or empty is one of numbers. Any
    other is a category, also booleans; its values are those of all parts, sorted as text.

    Args:
        files: of each part, ``train`` among them.
        name: of the column.
        categorical: whether its numbers are names.
        encoding: of categories: a column of zeros and ones for each value, or their positions.
        missing: whether cells may be empty. With positions, these have one of their own, the last.

    Raises:
        UserError: there is no such column, it is empty in the whole training part, cells are empty
            that must not be, numbers are infinite or mixed with text, or a category has too many
            values to give each a column.
    """
    columns = {part: column_of(file, name, KEY) for part, file in files.items()}
    numbers = None if categorical else _numbers(columns["train"])
    if numbers is None:
        said = {part: cells(file, name, KEY) for part, file in files.items()}
        if not categorical:
            _check_text(columns["train"], name, files["train"].where)
        return _category(files, name, said, encoding, missing)
    values = {}
    for part, file in files.items():
        found = numbers if part == "train" else _numbers(columns[part])
        if found is None:
            raise _no_number(columns[part], name, file.where)
        with np.errstate(over="ignore"):
            values[part] = found.astype(np.float32)[:, None]
        infinite = np.isinf(values[part])
        if infinite.any():
            raise UserError(
                f"{file.where}: column {name!r} holds {int(infinite.sum())} values that are "
                f"infinite or beyond float32, first in row {int(infinite.argmax()) + 1}"
            )
        _check_empty(np.isnan(found), name, file.where, missing)
    if np.isnan(numbers).all():
        raise UserError(f"{files['train'].where}: column {name!r} is empty; leave it out")
    return Column(values, [{"column": name}])


def _category(
    files: Mapping[str, File],
    name: str,
    said: Mapping[str, Cells],
    encoding: Encoding,
    missing: Missing,
) -> Column:
    found = sorted({cell for part in said.values() for cell in part if cell is not None})
    position = {value: number for number, value in enumerate(found)}
    values = {}
    for part, part_cells in said.items():
        empty = np.array([cell is None for cell in part_cells])
        _check_empty(empty, name, files[part].where, missing)
        codes = np.array([len(found) if cell is None else position[cell] for cell in part_cells])
        if encoding == "codes":
            values[part] = codes.astype(np.float32)[:, None]
            continue
        if len(found) > MOST:
            raise UserError(
                f"{files[part].where}: column {name!r} holds {len(found)} different texts, too "
                f"many for a column each; leave it out with data.source.exclude=[{name}], or set "
                "data.source.encoding=codes"
            )
        values[part] = np.eye(len(found) + 1, len(found), dtype=np.float32)[codes]
        values[part][empty] = np.nan
    if encoding == "codes":
        return Column(values, [{"column": name, "codes": found}])
    return Column(values, [{"column": name, "is": value} for value in found])


def _numbers(column: Any) -> npt.NDArray[np.float64] | None:
    """A column as numbers, NaN where it is empty; None where a cell is none."""
    import pyarrow
    from pyarrow import compute, types

    if types.is_boolean(column.type):
        return None
    if types.is_string(column.type) or types.is_large_string(column.type):
        column = _trimmed(column)
        if column.null_count == len(column):
            return np.full(len(column), np.nan)
    try:
        filled = compute.fill_null(column.cast(pyarrow.float64()), np.nan)
    except pyarrow.ArrowInvalid:
        return None
    found: npt.NDArray[np.float64] = filled.to_numpy()
    return found


def _trimmed(column: Any) -> Any:
    """Text without blanks around it, null where that stands for no number."""
    import pyarrow
    from pyarrow import compute

    text = compute.utf8_trim_whitespace(column.cast(pyarrow.string()))
    empty = compute.is_in(text, value_set=pyarrow.array(EMPTY))
    return compute.if_else(empty, pyarrow.scalar(None, pyarrow.string()), text)


def _check_text(column: Any, name: str, where: str) -> None:
    """Refuse a column of numbers in which some cells are none."""
    from pyarrow import compute, types

    if types.is_boolean(column.type):
        return
    text = _trimmed(column)
    count = compute.sum(compute.match_substring_regex(text, NUMBER)).as_py() or 0
    if 2 * count > len(text) - text.null_count:
        raise _no_number(column, name, where)


def _no_number(column: Any, name: str, where: str) -> UserError:
    from pyarrow import compute

    text = _trimmed(column)
    wrong = compute.invert(compute.match_substring_regex(text, NUMBER))
    row = compute.index(wrong, True).as_py()
    return UserError(
        f"{where}: column {name!r} holds numbers, but {text[row].as_py()!r} in row {row + 1}; "
        f"repair it, or set data.source.categorical=[{name}] if they are names"
    )


def _check_empty(empty: npt.NDArray[np.bool_], name: str, where: str, missing: Missing) -> None:
    if missing == "refuse" and empty.any():
        raise UserError(
            f"{where}: column {name!r} has {int(empty.sum())} empty cells or NaN, first in row "
            f"{int(empty.argmax()) + 1}; data.source.missing=mean puts the mean of the training "
            "split there"
        )
