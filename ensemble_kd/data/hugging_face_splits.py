"""Splits and columns of a data set that the library ``datasets`` reads."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ensemble_kd.data.labels import label_of
from ensemble_kd.data.pictures import GREY, decoded, each, header
from ensemble_kd.errors import UserError, nearest

AUTO = "auto"
"""Takes the split that is called as its part is, if there is one with labels."""

CALLED = {"val": ("validation", "val", "valid", "dev"), "test": ("test",)}
"""How splits of these parts are called."""

WRITTEN = ("dataset_dict.json", "state.json")
"""Files in a folder that ``save_to_disk`` wrote: of several splits, and of one."""


class Held(NamedTuple):
    """A ``datasets.Dataset``, and what the error message calls it."""

    rows: Any
    where: str


def opened(
    path: str, subset: str | None, revision: str | None, cache: str | Path | None
) -> dict[str, Any]:
    """All splits of a data set, by their names.

    Args:
        path: a folder, or the id of a data set on the hub.
        subset: its configuration.
        revision: the commit on the hub.
        cache: where the library keeps what it has read.

    Raises:
        UserError: the library is not installed, or the data set cannot be read.
    """
    try:
        import datasets
    except ModuleNotFoundError as missing:
        raise UserError(
            "data.source needs the package 'datasets': pip install ensemble-kd[text]"
        ) from missing
    folder = Path(path).expanduser()
    local = folder.is_dir()
    if not local and (folder.is_absolute() or path.startswith((".", "~"))):
        raise UserError(f"data.source.path: no folder {folder.absolute()}")
    if not local and revision is None:
        raise UserError(
            f"data.source.path: no folder {path!r}; to download it from the Hugging Face hub, name "
            "the commit with data.source.revision"
        )
    try:
        with _quiet():
            if local and any((folder / name).is_file() for name in WRITTEN):
                found = datasets.load_from_disk(str(folder))
            else:
                found = datasets.load_dataset(
                    str(folder) if local else path,
                    subset,
                    revision=None if local else revision,
                    cache_dir=None if cache is None else str(cache),
                )
    except Exception as error:  # the library raises what its many readers raise
        reason = error.__cause__ or error
        why = " ".join(str(reason).split())[:200]
        raise UserError(f"data.source.path: {path} cannot be read as a data set: {why}") from error
    return {"train": found} if isinstance(found, datasets.Dataset) else dict(found)


def chosen(
    found: Mapping[str, Any], wanted: Mapping[str, str | None], path: str
) -> dict[str, Held]:
    """The splits to use, by part.

    Args:
        found: all splits, by name.
        wanted: for each part the name of its split, ``auto``, or None for none.
        path: what the error message calls the data set.

    Raises:
        UserError: there is no such split, or it is empty.
    """
    splits = {}
    for part, name in wanted.items():
        if name == AUTO:
            name = next((each for each in CALLED[part] if each in found), None)
        if name is None:
            continue
        if name not in found:
            hint = nearest(name, found)
            raise UserError(f"data.source.{part}: no split {name!r} in {path}{hint}")
        where = f"{path} ({name})"
        if not len(found[name]):
            raise UserError(f"{where} holds no rows")
        splits[part] = Held(found[name], where)
    return splits


def column(held: Held, name: str, key: str) -> list[Any]:
    """A column as plain values.

    Raises:
        UserError: there is no such column.
    """
    return list(feature_of(held, name, key)[1])


def feature_of(held: Held, name: str, key: str) -> tuple[Any, Any]:
    """What a column holds, as the library says it, and its values."""
    if name not in held.rows.column_names:
        hint = nearest(name, held.rows.column_names)
        raise UserError(f"{key}: no column {name!r} in {held.where}{hint}")
    return held.rows.features[name], held.rows[name]


def texts(held: Held, name: str) -> list[str]:
    """A column of texts.

    Raises:
        UserError: there is no such column, or it holds something else.
    """
    found = column(held, name, "data.source.text")
    for row, value in enumerate(found, 1):
        if not isinstance(value, str):
            raise UserError(
                f"{held.where}: column {name!r} must hold texts, got {type(value).__name__} in row "
                f"{row}"
            )
    return found


def words(held: Held, name: str) -> list[list[str]]:
    """A column of lists of words.

    Raises:
        UserError: there is no such column, or it holds something else.
    """
    found = column(held, name, "data.source.tokens")
    for row, value in enumerate(found, 1):
        if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            raise UserError(
                f"{held.where}: column {name!r} must hold lists of words, see row {row}"
            )
    return found


def label_names(kind: Any) -> tuple[str, ...] | None:
    """The names of the classes in a column; None where it is no column of classes."""
    names = getattr(kind, "names", None)
    return None if names is None else tuple(names)


def label(value: Any, names: Sequence[str] | None, where: str) -> str | None:
    """A label as text; None where it is not known.

    Raises:
        UserError: it is no class of the column.
    """
    said = label_of(value)
    if said is None or names is None:
        return said
    if value == -1:
        return None
    if not 0 <= value < len(names):
        raise UserError(f"{where}: labels must be in 0..{len(names) - 1}, got {value}")
    return names[int(value)]


def tags(value: Any, names: Sequence[str] | None, where: str) -> list[str] | None:
    """The tags of a text as text; None where none is known.

    Raises:
        UserError: they are no list, or some are known and others not.
    """
    if value is None:
        return None
    if not isinstance(value, list):
        raise UserError(f"{where}: expected lists of tags, got {type(value).__name__}")
    found = [label(each, names, where) for each in value]
    known = [each for each in found if each is not None]
    if not known:
        return None
    if len(known) < len(found):
        raise UserError(f"{where}: expected tags for all words of a text or for none, got some")
    return known


def pixels(
    held: Held, name: str, channels: int | None, size: tuple[int, int] | None
) -> npt.NDArray[np.uint8]:
    """A column of images, (n, channels, height, width).

    Args:
        held: the split.
        name: of the column.
        channels: 1 or 3; None for those of the first image.
        size: height and width; None for that of the first image, which all must have then.

    Raises:
        UserError: there is no such column, it holds no images, or these differ in size.
    """
    import datasets

    kind, _ = feature_of(held, name, "data.source.image")
    if not isinstance(kind, datasets.Image):
        raise UserError(f"{held.where}: column {name!r} must hold images, got {kind}")
    rows = held.rows.cast_column(name, datasets.Image(decode=False))[name]
    sources = [_content(value, f"{held.where}: row {row}") for row, value in enumerate(rows, 1)]
    where = [f"{held.where}: the image of row {row}" for row in range(1, len(sources) + 1)]
    mode, found = header(io.BytesIO(sources[0]), where[0])
    channels = channels or (1 if mode in GREY else 3)
    shape = size or found
    images = np.empty((len(sources), channels, *shape), np.uint8)

    def image(row: int) -> npt.NDArray[np.uint8]:
        made = decoded(io.BytesIO(sources[row]), where[row], channels, size)
        if made.shape[1:] != shape:
            raise UserError(
                f"{where[row]} is {made.shape[1]}x{made.shape[2]}, the first is "
                f"{shape[0]}x{shape[1]} (height x width); set data.source.size=[height,width]"
            )
        return made

    for row, made in enumerate(each(image, range(len(sources)))):
        images[row] = made
    return images


def _content(value: Any, where: str) -> bytes:
    if value is None:
        raise UserError(f"{where} has no image")
    if value["bytes"] is not None:
        return bytes(value["bytes"])
    try:
        return Path(value["path"]).read_bytes()
    except OSError as error:
        raise UserError(f"{where}: {value['path']} cannot be read ({error.strerror})") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's progress bars, which would stand between those of a run."""
    from datasets.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    before = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not before:
            enable_progress_bars()
