"""Where labels go beside points that may lie on top of each other. Lengths are in points."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

XY = tuple[float, float]

ROWS = 12  # how many rows above and below its point a label may move
CLEAR = 9.0  # between a point and a label beside it
SLANT = 9.0  # what is added where a line has to lead from one to the other


class Box(NamedTuple):
    """A rectangle."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: Box) -> float:
        """The area that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(width, 0.0) * max(height, 0.0)

    def holds(self, point: XY) -> bool:
        """Whether a point lies within."""
        return self.left <= point[0] <= self.right and self.bottom <= point[1] <= self.top


class Place(NamedTuple):
    """Where a label could stand.

    Attributes:
        box: what it covers.
        start: the point that it names.
        end: where a line from the point meets it.
    """

    box: Box
    start: XY
    end: XY

    def line(self) -> list[XY]:
        """The line from point to label, as five places on it."""
        (x, y), (u, v) = self.start, self.end
        return [(x + (u - x) * t / 5, y + (v - y) * t / 5) for t in range(1, 6)]


def place_labels(anchors: Sequence[XY], sizes: Sequence[XY], frame: Box) -> list[Place]:
    """A place for each label, to the right or the left of its point, on its row or on another.

    They are placed one after the other, from the middle of the heap outwards, each where it costs
    least: covering a label or a point costs most, then a line that crosses another, then distance.

    Args:
        anchors: the points.
        sizes: width and height of each label.
        frame: what the labels stay within if they can.
    """
    middle = sorted(y for _, y in anchors)[len(anchors) // 2] if anchors else 0.0
    dots = [Box(x - 5, y - 5, x + 5, y + 5) for x, y in anchors]
    placed: dict[int, Place] = {}
    for i in sorted(range(len(anchors)), key=lambda i: (abs(anchors[i][1] - middle), i)):
        others = placed.values()
        placed[i] = min(
            _candidates(anchors[i], sizes[i]), key=lambda place: _cost(place, dots, others, frame)
        )
    return [placed[i] for i in range(len(anchors))]


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places at least ``gap`` apart within [low, high], each as near to the wanted one as can be.

    The order of the wanted places is kept. Places that would be pushed together form a block, which
    sits where the mean of their wishes is. If there is not enough room, they share it evenly.

    Args:
        wanted: where each label would like to be.
        gap: smallest distance between neighbours.
        low: lowest place.
        high: highest place.
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    if len(order) > 1:
        gap = min(gap, (high - low) / (len(order) - 1))

    def start(block: Sequence[int]) -> float:
        length = gap * (len(block) - 1)
        middle = sum(wanted[i] for i in block) / len(block)
        return min(max(middle - length / 2, low), high - length)

    blocks: list[list[int]] = []
    for i in order:
        blocks.append([i])
        while len(blocks) > 1 and start(blocks[-1]) < start(blocks[-2]) + gap * len(blocks[-2]):
            joined = blocks.pop()
            blocks[-1] += joined
    places = {i: start(block) + gap * k for block in blocks for k, i in enumerate(block)}
    return [places[i] for i in range(len(wanted))]


def _candidates(anchor: XY, size: XY) -> Iterator[Place]:
    """Places on both sides, the nearest first."""
    (x, y), (width, height) = anchor, size
    for row in sorted(range(-ROWS, ROWS + 1), key=lambda row: (abs(row), -row)):
        for side in (1, -1):
            near = x + side * (CLEAR + (SLANT if row else 0.0))
            far = near + side * width
            level = y + row * (height + 1)
            box = Box(min(near, far), level - height / 2, max(near, far), level + height / 2)
            yield Place(box, anchor, (near - 2 * side, level))


def _cost(place: Place, dots: Sequence[Box], others: Collection[Place], frame: Box) -> float:
    box = place.box
    area = (box.right - box.left) * (box.top - box.bottom)
    covered = sum(box.overlap(dot) for dot in dots) + sum(box.overlap(o.box) for o in others)
    outside = area - box.overlap(frame)
    lines = sum(o.box.holds(spot) for o in others for spot in place.line())
    lines += sum(box.holds(spot) for o in others for spot in o.line())
    lines += sum(_cross(place, other) for other in others)
    return covered + 2 * outside + 40 * lines + abs(place.end[1] - place.start[1])


def _cross(one: Place, other: Place) -> bool:
    """Whether the lines of two places cross."""

    def side(a: XY, b: XY, c: XY) -> float:
        return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])

    (a, b), (c, d) = (one.start, one.end), (other.start, other.end)
    return side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0
