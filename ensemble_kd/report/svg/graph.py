"""Who taught whom: boxes in layers, from left to right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup

from ensemble_kd.report.svg.element import (
    Drawing,
    element,
    fitted,
    joined,
    picture,
    text,
)

BOX, GAP = 186.0, 60.0
TALL, ROW = 40.0, 52.0


class Node(NamedTuple):
    """A network.

    Attributes:
        name: in the upper line of its box.
        note: in the lower one.
        style: classes of the style sheet.
        parents: names of those who taught it; unknown ones are passed over.
        last: whether it stands in the last layer, however short the way to it is.
    """

    name: str
    note: str
    style: str
    parents: Sequence[str]
    last: bool = False


def lineage_graph(drawing: Drawing, nodes: Sequence[Node]) -> Markup:
    """Boxes and the lines between them.

    Args:
        drawing: its name and description.
        nodes: at least one, their order within a layer; nobody is taught by a later generation
            of itself.
    """
    layers = layered(nodes)
    tallest = max(map(len, layers))
    height = tallest * ROW - (ROW - TALL) + 8
    width = len(layers) * (BOX + GAP) - GAP + 4
    places: dict[str, tuple[float, float]] = {}
    for number, layer in enumerate(layers):
        top = (height - (len(layer) * ROW - (ROW - TALL))) / 2
        for row, node in enumerate(layer):
            places[node.name] = (2 + number * (BOX + GAP), top + row * ROW)
    return picture(
        drawing,
        width,
        height,
        joined(_edges(nodes, places)),
        joined(_box(node, *places[node.name]) for node in nodes),
    )


def layered(nodes: Sequence[Node]) -> list[list[Node]]:
    """Nodes by the longest way to them, each behind all that taught it."""
    known = {node.name: node for node in nodes}
    depths: dict[str, int] = {}

    def depth(name: str, below: tuple[str, ...] = ()) -> int:
        if name not in depths:
            above = [p for p in known[name].parents if p in known and p not in (name, *below)]
            depths[name] = 1 + max((depth(p, (name, *below)) for p in above), default=-1)
        return depths[name]

    deepest = max(depth(node.name) for node in nodes)
    layers: list[list[Node]] = [[] for _ in range(deepest + 1)]
    for node in nodes:
        layers[deepest if node.last else depths[node.name]].append(node)
    return [layer for layer in layers if layer]


def _edges(nodes: Sequence[Node], places: Mapping[str, tuple[float, float]]) -> list[Markup]:
    edges = []
    for node in nodes:
        for parent in node.parents:
            if parent in places:
                (x, y), (u, v) = places[parent], places[node.name]
                start, end = (x + BOX, y + TALL / 2), (u - 1, v + TALL / 2)
                bend = max((end[0] - start[0]) / 2, GAP / 2)
                drawn = (
                    f"M{start[0]:.1f} {start[1]:.1f}C{start[0] + bend:.1f} {start[1]:.1f} "
                    f"{end[0] - bend:.1f} {end[1]:.1f} {end[0]:.1f} {end[1]:.1f}"
                )
                edges.append(element("path", {"d": drawn, "class": f"edge {node.style}"}))
    return edges


def _box(node: Node, x: float, y: float) -> Markup:
    shape = {"x": x, "y": y, "width": BOX, "height": TALL, "rx": 5}
    return element(
        "g",
        {},
        element("title", {}, f"{node.name}: {node.note}"),
        element("rect", {**shape, "class": f"box {node.style}"}),
        text(x + 12, y + 17, fitted(node.name, 12, BOX - 20), f"label {node.style}"),
        text(x + 12, y + 32, fitted(node.note, 11, BOX - 8), "tick"),
    )
