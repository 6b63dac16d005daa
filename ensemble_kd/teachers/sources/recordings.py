"""Reading files of predictions: npy, npz and parquet."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ensemble_kd.errors import UserError, nearest
from ensemble_kd.given_files import one_line

LOGITS, PROBABILITIES, NAMES = "logits", "probabilities", "names"


class Recording(NamedTuple):
    """What a file says.

    Attributes:
        ids: (n,) whole numbers or texts; None where rows have no ids.
        values: (n, c) float32 or float64.
        probabilities: whether these are probabilities and not logits.
        names: of the classes, in the order of the columns, where the file says them.
    """

    ids: npt.NDArray[Any] | None
    values: npt.NDArray[Any]
    probabilities: bool
    names: tuple[str, ...] | None = None


def read_recording(file: Path, id: str, probabilities: bool | None) -> Recording:
    """Read predictions.

    Args:
        file: ends .npy, .npz or .parquet.
        id: name of the ids.
        probabilities: whether the values are probabilities; None where their name says it.

    Raises:
        UserError: the file is damaged, or something is missing in it.
    """
    if file.suffix.lower() == ".parquet":
        return _parquet(file, id, probabilities)
    held = _arrays(file)
    if isinstance(held, np.ndarray):
        return Recording(None, _numbers(held, file), _said(file, None, probabilities))
    if id not in held:
        raise UserError(f"{file}: no array {id!r} with the ids{nearest(id, held)}")
    name = _values_in(held, file)
    values = _numbers(held[name], file)
    ids = _ids(held[id], len(values), file)
    return Recording(ids, values, _said(file, name, probabilities), _names(held, file))


def _arrays(file: Path) -> Any:
    """One array, or several by name."""
    try:
        # The library leaves a file open that it cannot read.
        with file.open("rb") as opened:
            held = np.load(opened, allow_pickle=False)
            return {name: held[name] for name in held.files} if hasattr(held, "files") else held
    except MemoryError as failure:
        raise UserError(
            f"{file}: truncated, or says to hold more than there is memory for: {one_line(failure)}"
        ) from failure
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as failure:
        raise UserError(f"{file}: truncated or damaged: {one_line(failure)}") from failure
    except ValueError as failure:
        raise UserError(
            f"{file}: truncated, or holds Python objects; only plain numbers and texts are read, "
            "nothing is unpickled"
        ) from failure


def _parquet(file: Path, id: str, probabilities: bool | None) -> Recording:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with file.open("rb") as opened:
            table = parquet.read_table(opened)
    except (pa.ArrowException, OSError) as failure:
        raise UserError(
            f"{file}: expected a parquet file, got one that is truncated or something else"
        ) from failure
    columns = table.column_names
    if id not in columns:
        raise UserError(f"{file}: no column {id!r} with the ids{nearest(id, columns)}")
    ids = _ids(np.asarray(table[id].to_pylist()), len(table), file)
    if {LOGITS, PROBABILITIES} & set(columns):
        name = _values_in(dict.fromkeys(columns), file)
        rows = table[name].to_pylist()
        widths = {len(row) if isinstance(row, list) else -1 for row in rows}
        if len(widths) != 1 or -1 in widths:
            raise UserError(
                f"{file}: column {name!r}: expected lists of one length, got {_lengths(widths)}"
            )
        try:
            values = np.asarray(rows, float)
        except (TypeError, ValueError) as failure:
            raise UserError(f"{file}: column {name!r}: expected lists of numbers") from failure
        return Recording(ids, _numbers(values, file), _said(file, name, probabilities))
    names = tuple(column for column in columns if column != id)
    wrong = [name for name in names if not _is_number(table.schema.field(name).type)]
    if wrong:
        raise UserError(
            f"{file}: expected columns of numbers, one for each class, beside {id!r}; "
            f"{', '.join(wrong[:5])} hold something else"
        )
    values = np.stack([table[name].to_numpy() for name in names], 1) if names else np.empty((0, 0))
    return Recording(ids, _numbers(values, file), _said(file, None, probabilities), names)


def _lengths(widths: set[int]) -> str:
    """Lengths of lists, and what has none, in words."""
    words = ["no list" if width < 0 else f"length {width}" for width in sorted(widths)]
    return ", ".join(words[:5]) or "no rows"


def _is_number(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _values_in(held: Any, file: Path) -> str:
    found = [name for name in (LOGITS, PROBABILITIES) if name in held]
    if len(found) != 1:
        raise UserError(
            f"{file}: expected either {LOGITS!r} or {PROBABILITIES!r}, got "
            f"{' and '.join(found) or ', '.join(map(str, held)) or 'nothing'}"
        )
    return found[0]


def _said(file: Path, name: str | None, probabilities: bool | None) -> bool:
    """Whether values are probabilities, as their name or the user says."""
    if name is None:
        if probabilities is None:
            raise UserError(
                f"{file}: logits or probabilities? say it with probabilities: true or false"
            )
        return probabilities
    if probabilities is not None and probabilities != (name == PROBABILITIES):
        raise UserError(
            f"{file}: it says {name!r}, got probabilities: {str(probabilities).lower()}"
        )
    return name == PROBABILITIES


def _ids(values: npt.NDArray[Any], count: int, file: Path) -> npt.NDArray[Any]:
    if values.shape != (count,):
        raise UserError(f"{file}: expected {count} ids, one for each row, got shape {values.shape}")
    if values.dtype.kind not in "iuU":
        raise UserError(
            f"{file}: expected ids that are whole numbers or texts, none missing, got "
            f"{values.dtype}"
        )
    return values


def _names(held: Mapping[str, npt.NDArray[Any]], file: Path) -> tuple[str, ...] | None:
    if NAMES not in held:
        return None
    if held[NAMES].ndim != 1:
        raise UserError(f"{file}: {NAMES}: expected a name for each class, got a single one")
    return tuple(map(str, held[NAMES].tolist()))


def _numbers(values: npt.NDArray[Any], file: Path) -> npt.NDArray[Any]:
    if not values.ndim:
        raise UserError(f"{file}: expected values (samples, classes), got a single number")
    if values.dtype.kind not in "fiu":
        raise UserError(f"{file}: expected values that are numbers, got {values.dtype}")
    return values.astype(np.float64)
