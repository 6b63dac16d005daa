"""Curves: values by epoch, by severity, by whatever grows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from ensemble_kd.report.placement import spread
from ensemble_kd.report.svg.element import (
    Drawing,
    element,
    joined,
    path,
    picture,
    shortened,
    text,
    text_width,
)
from ensemble_kd.report.svg.frame import Form, Frame, plain
from ensemble_kd.report.svg.scale import Scale

MOST = 250
"""Points of a curve; of longer ones, some are left out at equal distances."""
LABEL = 12.0
NAME = 26


class Line(NamedTuple):
    """A curve.

    Attributes:
        name: stands beside its end, where there is room for names.
        style: classes of the style sheet, such as that of a role.
        points: (x, y) in the order of x, at least one.
        last: its last value, written behind the name.
        strength: opacity.
    """

    name: str
    style: str
    points: Sequence[tuple[float, float]]
    last: str = ""
    strength: float | None = None


class Axes(NamedTuple):
    """The two axes of a chart of curves.

    Attributes:
        x: limits.
        y: limits; what lies outside is cut off.
        label: what x measures.
        x_form: how values of x are written.
        y_form: how values of y are written.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    label: str
    x_form: Form
    y_form: Form


def line_chart(
    drawing: Drawing,
    lines: Sequence[Line],
    axes: Axes,
    size: tuple[float, float],
    named: bool,
) -> Markup:
    """Curves on common axes.

    Args:
        drawing: its name and description.
        lines: drawn in this order, the last on top.
        axes: limits and labels.
        size: width and height of the picture.
        named: whether names stand beside the ends of the curves, in the right part of the picture.
    """
    width, height = size
    labels = [f"{shortened(curve.name, NAME)}  {curve.last}".rstrip() for curve in lines]
    right = max((text_width(label, LABEL) for label in labels), default=0.0) + 26
    left = 10 + max(text_width(axes.y_form(tick), 11) for tick in Scale(*axes.y, 0, 1).ticks(6))
    bottom = height - (38 if axes.label else 20)
    frame = Frame(
        Scale(*axes.x, left, width - (right if named else 10)), Scale(*axes.y, bottom, 10)
    )
    few = 4 if width < 400 else 8
    clip = f"{drawing.name}-clip"
    curves = [_curve(curve, frame) for curve in lines]
    return picture(
        drawing,
        width,
        height,
        frame.vertical(axes.y_form, 6 if height > 200 else 4),
        frame.horizontal(axes.x_form, axes.label, few, grid=False),
        frame.base(),
        element("clipPath", {"id": clip}, _inside(frame)),
        element("g", {"clip-path": f"url(#{clip})"}, joined(curves)),
        _names(lines, labels, frame) if named else Markup(),
    )


def epochs(value: float) -> str:
    """Whole numbers only: the round values between them stay without a name."""
    return plain(value) if value == int(value) else ""


def _inside(frame: Frame) -> Markup:
    # A little more than the frame, for lines on its edge have a width.
    return element(
        "rect",
        {
            "x": frame.x.start - 3,
            "y": frame.y.end - 3,
            "width": frame.x.end - frame.x.start + 6,
            "height": frame.y.start - frame.y.end + 6,
        },
    )


def _curve(curve: Line, frame: Frame) -> Markup:
    every = -(-len(curve.points) // MOST)
    # Counted from the end, so that the last point stays.
    points = [frame.place(x, y) for x, y in curve.points[::-1][::every][::-1]]
    if len(points) == 1:
        (x, y) = points[0]
        style = f"dot {curve.style}"
        return element("circle", {"cx": x, "cy": y, "r": 3.5, "class": style})
    return path(points, f"line {curve.style}", curve.strength)


def _names(lines: Sequence[Line], labels: Sequence[str], frame: Frame) -> Markup:
    """Names beside the ends, each joined to its own."""
    top, bottom = frame.y.end, frame.y.start
    ends = [frame.place(*curve.points[-1]) for curve in lines]
    wanted = [min(max(y, top), bottom) for _, y in ends]
    edge = frame.x.end
    parts = []
    places = spread(wanted, LABEL + 2, top, bottom)
    for curve, label, (x, y), place in zip(lines, labels, ends, places, strict=True):
        level = min(max(y, top), bottom)
        parts.append(
            path([(x, level), (edge + 4, level), (edge + 16, place)], f"leader {curve.style}")
        )
        parts.append(text(edge + 20, place + 4, label, f"label {curve.style}"))
    return joined(parts)
