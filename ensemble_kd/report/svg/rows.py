"""Rows of values on one axis: points, intervals, dots of single seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from ensemble_kd.report.svg.element import (
    Drawing,
    element,
    fitted,
    joined,
    line,
    picture,
    text,
    text_width,
)
from ensemble_kd.report.svg.frame import Form, Frame
from ensemble_kd.report.svg.scale import Scale, window

LABEL = 12.0
STEP = 26.0


class Mark(NamedTuple):
    """A value on a row.

    Attributes:
        value: where it stands.
        style: classes of the style sheet.
        hollow: whether only its edge is drawn.
        small: whether it is one of many.
        shift: pixels below the middle of the row, so that it hides no other.
    """

    value: float
    style: str
    hollow: bool = False
    small: bool = False
    shift: float = 0.0


class Row(NamedTuple):
    """A line of the chart.

    Attributes:
        label: on the left.
        marks: drawn in this order.
        interval: from where to where a bar reaches; None for none.
        note: on the right.
        style: of its bar.
        tone: of its label.
    """

    label: str
    marks: Sequence[Mark]
    interval: tuple[float, float] | None = None
    note: str = ""
    style: str = ""
    tone: str = ""


def row_chart(
    drawing: Drawing,
    rows: Sequence[Row],
    form: Form,
    label: str,
    zero: float | None = None,
    bounds: tuple[float, float] = (-math.inf, math.inf),
    width: float = 680.0,
    least: float = 0.02,
    mark: float | None = None,
) -> Markup:
    """Rows on one axis, which stands below them.

    Args:
        drawing: its name and description.
        rows: at least one of them with a mark or an interval.
        form: how values of the axis are written.
        label: what it measures.
        zero: a value at which a line stands, and which the axis holds.
        bounds: which its limits keep to.
        width: of the picture.
        least: its limits are at least so far apart.
        mark: another value at which a line stands, and which the axis holds.
    """
    names = [fitted(row.label, LABEL, 0.45 * width - 16) for row in rows]
    left = max(text_width(name, LABEL) for name in names) + 16
    right = max(text_width(row.note, LABEL) for row in rows) + 14
    height = len(rows) * STEP + 54
    values = [mark.value for row in rows for mark in row.marks]
    values += [end for row in rows for end in row.interval or ()]
    values += [value for value in (zero, mark) if value is not None]
    frame = Frame(
        Scale(*window(values, 0.06, least, bounds), left, width - right),
        Scale(len(rows), 0, 8 + len(rows) * STEP, 8),
    )
    few = max(2, int((frame.x.end - left) / 62))
    return picture(
        drawing,
        width,
        height,
        frame.horizontal(form, label, few),
        Markup() if zero is None else _upright(frame, zero, "zero"),
        Markup() if mark is None else _upright(frame, mark, "margin"),
        joined(
            _row(row, name, frame, place)
            for place, (row, name) in enumerate(zip(rows, names, strict=True))
        ),
    )


def _upright(frame: Frame, value: float, style: str) -> Markup:
    place = frame.x(value)
    return line(place, frame.y.start, place, frame.y.end, style)


def _row(row: Row, name: str, frame: Frame, place: int) -> Markup:
    level = frame.y(place + 0.5)
    parts = [text(frame.x.start - 12, level + 4, name, f"label {row.tone}".strip(), "end")]
    if row.interval is not None:
        low, high = (frame.x(end) for end in row.interval)
        parts.append(line(low, level, high, level, f"bar {row.style}".strip()))
    for mark in row.marks:
        kind = "ring" if mark.hollow else "dot"
        shape = {
            "cx": frame.x(mark.value),
            "cy": level + mark.shift,
            "r": 3.2 if mark.small else 5.0,
        }
        faint = 0.55 if mark.small else None
        parts.append(
            element("circle", {**shape, "class": f"{kind} {mark.style}", "opacity": faint})
        )
    if row.note:
        parts.append(text(frame.x.end + 12, level + 4, row.note, "value"))
    return joined(parts)
