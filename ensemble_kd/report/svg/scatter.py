"""Spots whose area is a size, with the front of those that none other beats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from ensemble_kd.report.placement import Box, place_labels
from ensemble_kd.report.svg.element import (
    Drawing,
    element,
    joined,
    line,
    path,
    picture,
    shortened,
    text,
    text_width,
)
from ensemble_kd.report.svg.frame import Form, Frame, percent
from ensemble_kd.report.svg.scale import Scale, log_window, window

WIDTH, HEIGHT = 680.0, 400.0
LARGEST, SMALLEST = 26.0, 3.5
LABEL = 12.0


class Spot(NamedTuple):
    """A network or a setting.

    Attributes:
        name: stands beside it.
        style: classes of the style sheet.
        x: cost, > 0.
        y: accuracy, a share.
        size: what its area is in proportion to, >= 0; None where nobody knows.
        hollow: whether only its edge is drawn.
    """

    name: str
    style: str
    x: float
    y: float
    size: float | None
    hollow: bool = False


def scatter_chart(drawing: Drawing, spots: Sequence[Spot], label: str, form: Form) -> Markup:
    """Accuracy against cost, on a logarithmic axis.

    Args:
        drawing: its name and description.
        spots: at least one.
        label: what the cost is.
        form: how it is written.
    """
    frame = Frame(
        Scale(*log_window(spot.x for spot in spots), 48, WIDTH - 14, log=True),
        Scale(*window((s.y for s in spots), 0.14, 0.02, (-0.02, 1.02)), HEIGHT - 44, 14),
    )
    radii = _radii(spots)
    ordered = sorted(zip(spots, radii, strict=True), key=lambda each: -each[1])
    return picture(
        drawing,
        WIDTH,
        HEIGHT,
        frame.vertical(percent),
        frame.horizontal(form, label),
        frame.base(),
        _front(spots, frame),
        joined(_spot(spot, radius, frame) for spot, radius in ordered),
        _names(spots, radii, frame),
    )


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """The points that no other beats: none is cheaper or as cheap, and better.

    Args:
        points: cost and accuracy.

    Returns:
        Their positions, from the cheapest to the best. Of equal points it is the first.
    """
    front: list[int] = []
    for place in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1], i)):
        if not front or points[place][1] > points[front[-1]][1]:
            front.append(place)
    return front


def _radii(spots: Sequence[Spot]) -> list[float]:
    """Areas in proportion to sizes, but no spot too small to be seen."""
    largest = max((spot.size or 0.0 for spot in spots), default=0.0)
    if largest <= 0 or all(spot.size == largest for spot in spots):
        return [2 * SMALLEST] * len(spots)
    return [
        2 * SMALLEST
        if spot.size is None
        else max(LARGEST * math.sqrt(spot.size / largest), SMALLEST)
        for spot in spots
    ]


def _front(spots: Sequence[Spot], frame: Frame) -> Markup:
    """Steps through the front: at each cost, the best accuracy that can be had for it."""
    best = [spots[i] for i in pareto_front([(spot.x, spot.y) for spot in spots])]
    steps: list[tuple[float, float]] = []
    for spot in best:
        x, y = frame.place(spot.x, spot.y)
        if steps:
            steps.append((x, steps[-1][1]))
        steps.append((x, y))
    steps.append((frame.x.end, steps[-1][1]))
    return path(steps, "front")


def _spot(spot: Spot, radius: float, frame: Frame) -> Markup:
    x, y = frame.place(spot.x, spot.y)
    kind = "ring" if spot.hollow else "spot"
    return element("circle", {"cx": x, "cy": y, "r": radius, "class": f"{kind} {spot.style}"})


def _names(spots: Sequence[Spot], radii: Sequence[float], frame: Frame) -> Markup:
    """Names where they cover neither a spot nor one another, as far as there is room."""
    anchors = [frame.place(spot.x, spot.y) for spot in spots]
    labels = [shortened(spot.name, 30) for spot in spots]
    sizes = [(text_width(label, LABEL), LABEL + 1) for label in labels]
    edges = Box(frame.x.start, frame.y.end, frame.x.end, frame.y.start)
    parts = []
    for spot, label, radius, place in zip(
        spots, labels, radii, place_labels(anchors, sizes, edges), strict=True
    ):
        (x, y), (u, v) = place.start, place.end
        beside = place.box.left >= x
        # Beside its own spot, however large that is.
        shift = max(radius - 5, 0) * (1 if beside else -1) if abs(v - y) < radius else 0
        if abs(v - y) > 1 and math.hypot(u - x, v - y) > radius:
            parts.append(line(x, y, u + shift, v, f"leader {spot.style}"))
        start = place.box.left if beside else place.box.right
        anchor = None if beside else "end"
        parts.append(text(start + shift, v + 4, label, f"label {spot.style}", anchor))
    return joined(parts)
