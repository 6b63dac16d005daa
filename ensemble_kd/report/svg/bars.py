"""Reliability: how often a network is right, by how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from ensemble_kd.report.svg.element import Drawing, element, joined, line, picture
from ensemble_kd.report.svg.frame import Frame, percent
from ensemble_kd.report.svg.scale import Scale

WIDTH, HEIGHT = 300.0, 300.0
LEFT, TOP, SIDE = 44.0, 10.0, 212.0
COUNTS = 26.0


class Bin(NamedTuple):
    """Samples of about the same confidence.

    Attributes:
        low: confidence from which.
        high: confidence up to which.
        share: of all samples.
        confidence: mean of theirs.
        accuracy: share of them that are right.
    """

    low: float
    high: float
    share: float
    confidence: float
    accuracy: float


def reliability_chart(drawing: Drawing, bins: Sequence[Bin], style: str) -> Markup:
    """A bar to the accuracy of each bin, a tick at its confidence, and below how full it is.

    Args:
        drawing: its name and description.
        bins: those that hold samples.
        style: classes of the style sheet.
    """
    frame = Frame(Scale(0, 1, LEFT, LEFT + SIDE), Scale(0, 1, TOP + SIDE, TOP))
    below = Frame(frame.x, Scale(0, 1, TOP + SIDE + 4 + COUNTS, TOP + SIDE + 4))
    fullest = max((each.share for each in bins), default=1.0)
    return picture(
        drawing,
        WIDTH,
        HEIGHT,
        frame.vertical(percent, 5),
        below.horizontal(percent, "confidence", 5, grid=False),
        joined(_bar(each, frame, style) for each in bins),
        joined(_count(each, below, style, fullest) for each in bins),
        line(*frame.place(0, 0), *frame.place(1, 1), "diagonal"),
        frame.base(),
    )


def _bar(each: Bin, frame: Frame, style: str) -> Markup:
    left, right = frame.x(each.low) + 1, frame.x(each.high) - 1
    top, bottom = frame.y(each.accuracy), frame.y(0)
    expected = frame.y(each.confidence)
    shape = {"x": left, "y": top, "width": right - left, "height": bottom - top}
    return element(
        "g",
        {},
        element("title", {}, _words(each)),
        element("rect", {**shape, "class": f"column {style}"}),
        line(left, expected, right, expected, "expected"),
    )


def _count(each: Bin, frame: Frame, style: str, fullest: float) -> Markup:
    left, right = frame.x(each.low) + 1, frame.x(each.high) - 1
    tall = COUNTS * each.share / fullest
    shape = {"x": left, "y": frame.y.end, "width": right - left, "height": tall}
    return element("rect", {**shape, "class": f"count {style}"})


def _words(each: Bin) -> str:
    return (
        f"confidence {each.low:.2f} to {each.high:.2f}: {each.share:.1%} of the samples, "
        f"mean confidence {each.confidence:.1%}, accuracy {each.accuracy:.1%}"
    )
