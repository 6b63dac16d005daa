"""Squares whose strength is a value, as between each two of some names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from markupsafe import Markup

from ensemble_kd.report.svg.element import (
    Drawing,
    element,
    joined,
    picture,
    shortened,
    text,
    text_width,
)

STRONGEST = 0.55
"""Opacity of the strongest square: text on it must stay legible."""
LONGEST = 26
LABEL = 11.0


class Cell(NamedTuple):
    """A square.

    Attributes:
        strength: from 0 to 1.
        said: what stands in it, text or a number as markup.
        style: classes of the style sheet, of which one says the colour.
        about: what it says in words, for those who point at it.
    """

    strength: float
    said: str
    style: str
    about: str


def heat_map(
    drawing: Drawing,
    rows: Sequence[str],
    columns: Sequence[str],
    cell: Callable[[int, int], Cell | None],
    size: float,
    axes: tuple[str, str] = ("", ""),
) -> Markup:
    """A table of squares.

    Args:
        drawing: its name and description.
        rows: names, from the top.
        columns: names, from the left; they stand above, on their sides.
        cell: of a row and a column, by their positions; None for an empty one.
        size: of a square.
        axes: what the rows and what the columns are.
    """
    names = [shortened(name, LONGEST) for name in rows]
    above = [shortened(name, LONGEST) for name in columns]
    left = max(text_width(name, LABEL) for name in names) + (34 if axes[0] else 12)
    top = max(text_width(name, LABEL) for name in above) + (32 if axes[1] else 12)
    width, height = left + size * len(columns) + 2, top + size * len(rows) + 2
    parts = [
        text(left - 8, top + size * (row + 0.5) + 4, name, "tick", "end")
        for row, name in enumerate(names)
    ]
    parts += [
        _upright(left + size * (k + 0.5) + 4, top - 8, name, "tick") for k, name in enumerate(above)
    ]
    if axes[0]:
        parts.append(_upright(13, top + size * len(rows) / 2, axes[0], "axis-label", "middle"))
    if axes[1]:
        middle = left + size * len(columns) / 2
        parts.append(text(middle, 13, axes[1], "axis-label", "middle"))
    for row in range(len(rows)):
        for column in range(len(columns)):
            found = cell(row, column)
            if found is not None:
                parts.append(_square(found, left + size * column, top + size * row, size))
    return picture(drawing, width, height, joined(parts))


def _square(cell: Cell, x: float, y: float, size: float) -> Markup:
    square = element(
        "rect",
        {
            "x": x + 0.75,
            "y": y + 0.75,
            "width": size - 1.5,
            "height": size - 1.5,
            "rx": 2,
            "class": f"cell {cell.style}",
            "fill-opacity": max(0.05, STRONGEST * cell.strength),
        },
    )
    said = text(x + size / 2, y + size / 2 + 4, cell.said, "cell-text", "middle")
    return element(
        "g", {}, element("title", {}, cell.about), square, said if cell.said else Markup()
    )


def _upright(x: float, y: float, said: str, style: str, anchor: str | None = None) -> Markup:
    """Text that reads from the bottom to the top."""
    return element(
        "text",
        {
            "transform": f"translate({x:.2f} {y:.2f}) rotate(-90)",
            "class": style,
            "text-anchor": anchor,
        },
        said,
    )
