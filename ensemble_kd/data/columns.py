"""Files of rows and columns: csv, tsv and parquet, packed with gzip or not."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ensemble_kd.data.source import IdArray, existing
from ensemble_kd.errors import UserError, nearest

Cells = Sequence[str | None]
"""Of a column; None where a cell is empty."""

ENDINGS = (".csv", ".tsv", ".parquet")

BLOCK, LARGEST = 2**20, 2**31 - 1
"""Bytes of csv and tsv that are read at once, at least and at most."""


class File(NamedTuple):
    """What was read: a ``pyarrow.Table``, and what the error message calls it."""

    table: Any
    where: str


def read_parts(
    paths: Mapping[str, str | Path | None], remedy: str, limit: int | None = None
) -> dict[str, File]:
    """Read the files of the parts that there are.

    Args:
        paths: by part, ``train`` among them.
        remedy: how to get them, the end of the error message.
        limit: take that many rows of the training part only, the first ones.

    Raises:
        UserError: as from ``read``, or there are fewer rows.
    """
    found = {}
    for part, said in paths.items():
        if said is not None:
            path = Path(said).expanduser()
            found[part] = File(read(path, remedy), str(path.absolute()))
    if limit is not None:
        table, where = found["train"]
        if not 1 <= limit <= table.num_rows:
            raise UserError(f"{where}: limit must be between 1 and {table.num_rows}, got {limit}")
        found["train"] = File(table.slice(0, limit), where)
    return found


def read(path: Path, remedy: str) -> Any:
    """Read a file of columns as a ``pyarrow.Table``; those of csv and tsv are all of text.

    The ending says what it is: ``.csv`` (commas, cells in double quotes where need be, which may
    hold line breaks), ``.tsv`` (tabs, quotes mean nothing) or ``.parquet``; the first two may be
    packed, ``.csv.gz``. Text is UTF-8; the first line names the columns.

    Args:
        path: the file.
        remedy: how to get it, the end of the error message.

    Raises:
        UserError: it is missing, empty, damaged, not UTF-8, has rows of unequal lengths, columns
            of the same name or no rows at all.
    """
    import pyarrow
    from pyarrow import parquet

    existing(path, remedy)
    where = str(path.absolute())
    name = path.name.lower().removesuffix(".gz")
    if not name.endswith(ENDINGS):
        raise UserError(f"{where}: expected a file {', '.join(ENDINGS)}, packed with .gz or not")
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix.lower() == ".gz" else None
        source = path if content is None else io.BytesIO(content)
        if name.endswith(".parquet"):
            table = parquet.read_table(source)
        else:
            table = _delimited(source, "\t" if name.endswith(".tsv") else ",")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{where} cannot be unpacked: it is truncated or not gzip") from error
    except (pyarrow.ArrowInvalid, UnicodeDecodeError) as error:
        raise UserError(f"{where} cannot be read: {_why(error)}") from error
    except OSError as error:
        raise UserError(f"{where} cannot be read: {' '.join(str(error).split())[:200]}") from error
    repeated = sorted({each for each in table.column_names if table.column_names.count(each) > 1})
    if repeated:
        raise UserError(f"{where}: expected columns of different names, got {repeated[0]!r} twice")
    if table.num_rows == 0:
        raise UserError(f"{where} holds no rows, only the columns {', '.join(table.column_names)}")
    return table


def column_of(file: File, name: str, key: str) -> Any:
    """A column as a ``pyarrow.ChunkedArray`` of text, numbers or booleans.

    Args:
        file: that was read.
        name: of the column.
        key: of the configuration that named it.

    Raises:
        UserError: there is no such column, or it holds something else.
    """
    from pyarrow import types

    if name not in file.table.column_names:
        hint = nearest(name, file.table.column_names)
        raise UserError(f"{key}: no column {name!r} in {file.where}{hint}")
    column = file.table[name]
    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if types.is_string_view(column.type):
        column = column.cast("string")
    kind = column.type
    plain = (types.is_string, types.is_large_string, types.is_boolean)
    if not any(fits(kind) for fits in (*plain, types.is_integer, types.is_floating)):
        raise UserError(f"{file.where}: column {name!r} must hold text or numbers, got {kind}")
    return column


def cells(file: File, name: str, key: str) -> list[str | None]:
    """A column as text, None where a cell is empty; see ``column_of``.

    Whole numbers have no decimal point and booleans are ``true`` and ``false``, whatever the file.
    """
    return [cell(value) for value in column_of(file, name, key).to_pylist()]


def identifiers(file: File, name: str) -> IdArray:
    """The ids of the rows: whole numbers if all are, else text.

    Raises:
        UserError: there is no such column, a cell is empty, or an id occurs twice.
    """
    said = cells(file, name, "data.source.id")
    empty = [row for row, cell in enumerate(said, 1) if cell is None]
    if empty:
        raise UserError(f"{file.where}: column {name!r} has no id in row {empty[0]}")
    return different([cell for cell in said if cell is not None], file.where)


def different(ids: Sequence[str], where: str) -> IdArray:
    """Ids as an array, of whole numbers if all are.

    Raises:
        UserError: an id occurs twice.
    """
    seen: dict[str, int] = {}
    for row, each in enumerate(ids, 1):
        if each in seen:
            raise UserError(
                f"{where}: ids must all be different, got {each!r} in rows {seen[each]} and {row}"
            )
        seen[each] = row
    numbers = whole_numbers(ids)
    return np.array(ids) if numbers is None else numbers


def whole_numbers(said: Sequence[str]) -> npt.NDArray[np.int64] | None:
    """Text that is whole numbers as such; None where it is not, or not the only way to write it."""
    try:
        numbers = np.array([int(each) for each in said], np.int64)
    except (ValueError, OverflowError):
        return None
    return numbers if [str(each) for each in numbers.tolist()] == list(said) else None


def cell(value: Any) -> str | None:
    """A value of a column as text, None where there is nothing; see ``cells``."""
    if value is None or value == "" or value != value:
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _delimited(source: Path | io.BytesIO, delimiter: str) -> Any:
    from pyarrow import csv

    quotes: Any = '"' if delimiter == "," else False
    parse = csv.ParseOptions(
        delimiter=delimiter,
        quote_char=quotes,
        newlines_in_values=delimiter == ",",
        # Of several columns, an empty line is a row without cells; of one, an empty cell.
        ignore_empty_lines=True,
    )
    data = source.read_bytes() if isinstance(source, Path) else source.getvalue()
    # In one block, as far as the library allows: a cell that reaches over two ends is an error.
    read = csv.ReadOptions(block_size=min(max(BLOCK, len(data)), LARGEST))
    # Once for the names, which the library must know to leave all cells as they are written.
    names = csv.read_csv(io.BytesIO(data), read, parse).column_names
    convert = csv.ConvertOptions(column_types=dict.fromkeys(names, "string"))
    return csv.read_csv(io.BytesIO(data), read, parse, convert)


def _why(error: Exception) -> str:
    said = " ".join(str(error).split())
    if isinstance(error, UnicodeDecodeError) or "utf8" in said.lower():
        return "its text is not UTF-8; convert it, for example with iconv -f latin1 -t utf-8"
    return said[:200]
