"""``curves.csv``: what was logged after each epoch of each stage, one value per row."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ensemble_kd.errors import UserError

if TYPE_CHECKING:
    from _csv import Reader as _Reader

COLUMNS = ("stage", "epoch", "name", "value")


class Point(NamedTuple):
    """One row of ``curves.csv``.

    Attributes:
        stage: name of the stage that was trained, such as ``assistant/0``.
        epoch: counts from 0.
        name: what was logged, such as ``student/soft`` or ``peer/1/val_accuracy``. Within a stage
            ``student`` is the network that the stage trains.
        value: mean over the epoch.
    """

    stage: str
    epoch: int
    name: str
    value: float


def append_points(path: Path, points: Iterable[Point]) -> None:
    """Add rows at the end of a file, in one write; a new file gets its header first.

    Raises:
        UserError: the file system refuses.
    """
    rows = list(points)
    if not rows:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            text = io.StringIO(newline="")
            writer = csv.writer(text, lineterminator="\n")
            if file.tell() == 0:
                writer.writerow(COLUMNS)
            writer.writerows((p.stage, p.epoch, p.name, f"{p.value:.7g}") for p in rows)
            file.write(text.getvalue().encode())
    except OSError as failure:
        raise UserError(f"cannot write {path}: {failure.strerror or failure}") from failure


def read_points(path: Path) -> list[Point]:
    """The rows of a file, in the order of writing.

    A last row that a crash cut off is left out. Where an epoch was written twice, because a stage
    was taken up again, the later value counts and stands where the earlier one stood.

    Raises:
        UserError: the file is not there, or is no such table.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as failure:
        raise UserError(f"cannot read {path}: {failure.strerror or failure}") from failure
    except UnicodeDecodeError as failure:
        raise UserError(f"{path}: expected the curves of a run, got something else") from failure
    whole = text[: text.rfind("\n") + 1]
    try:
        return _points(csv.reader(io.StringIO(whole, newline="")), path)
    except csv.Error as failure:
        raise UserError(f"{path}: expected the curves of a run, got something else") from failure


def _points(lines: _Reader, path: Path) -> list[Point]:
    header = next(lines, None)
    if header is None:
        return []
    if tuple(header) != COLUMNS:
        raise UserError(f"{path}: expected the columns {','.join(COLUMNS)}, got {','.join(header)}")
    read: dict[tuple[str, int, str], Point] = {}
    for row in lines:
        try:
            stage, epoch, name, value = row
            point = Point(stage, int(epoch), name, float(value))
        except ValueError as failure:
            raise UserError(
                f"{path}, line {lines.line_num}: expected stage,epoch,name,value, "
                f"got {','.join(row)!r}"
            ) from failure
        read[point[:3]] = point
    return list(read.values())


def learner(stage: str, name: str) -> str:
    """Whose value a logged one is: ``student/soft`` of stage ``teacher/0`` is ``teacher/0``'s."""
    owner = name.rpartition("/")[0]
    return stage if owner == "student" else owner


def by_learner(points: Iterable[Point]) -> Mapping[str, dict[str, list[tuple[int, float]]]]:
    """Logged values as series: learner -> what (``soft``, ``val_accuracy``) -> (epoch, value)...

    Names without an owner (``epoch``, ``lr``) are left out.
    """
    series: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for point in points:
        _, slash, what = point.name.rpartition("/")
        if slash:
            own = series.setdefault(learner(point.stage, point.name), {})
            own.setdefault(what, []).append((point.epoch, point.value))
    return series
