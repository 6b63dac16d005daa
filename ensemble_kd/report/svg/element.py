"""Elements of markup, the one place where what they hold is escaped."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from markupsafe import Markup, escape

Value = str | float | int | None
Attributes = Mapping[str, Value]

NARROW, BROAD = frozenset("iljtfrI.,:;'|!()[]/ -"), frozenset("mwMW@%")
UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufffe\uffff]"
)
"""Control characters, halves of pairs and what turns the text behind it around."""


class Drawing(NamedTuple):
    """What tells a picture from another, and what those hear who do not see it.

    Attributes:
        name: of letters, digits and hyphens; no two pictures of a page share it.
        title: what it shows.
        description: what is to be seen there, in a sentence or two.
    """

    name: str
    title: str
    description: str


def element(tag: str, attributes: Attributes, *children: str) -> Markup:
    """An element of HTML or SVG.

    Args:
        tag: its name, from this package.
        attributes: those that are None are left out; numbers are written with two decimals at most.
        children: text, which is escaped, or ``Markup``, which stays as it is.
    """
    said = "".join(
        f' {name}="{escape(readable(value) if isinstance(value, str) else short(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    inside = "".join(
        child if isinstance(child, Markup) else escape(readable(child)) for child in children
    )
    return Markup(f"<{tag}{said}>{inside}</{tag}>")


def joined(parts: Iterable[Markup]) -> Markup:
    """Elements one after the other."""
    return Markup("").join(parts)


def picture(drawing: Drawing, width: float, height: float, *children: Markup) -> Markup:
    """A drawing of a given size, with its name and description for those who do not see it."""
    title, description = f"{drawing.name}-title", f"{drawing.name}-desc"
    return element(
        "svg",
        {
            "viewBox": f"0 0 {short(width)} {short(height)}",
            "width": width,
            "height": height,
            "style": f"--own-width: {short(width)}px",
            "role": "img",
            "aria-labelledby": f"{title} {description}",
        },
        element("title", {"id": title}, drawing.title),
        element("desc", {"id": description}, drawing.description),
        *children,
    )


def text(x: float, y: float, said: str, style: str = "", anchor: str | None = None) -> Markup:
    """A line of text.

    Args:
        x: of its start, middle or end, as ``anchor`` says.
        y: of its base line.
        said: what it says.
        style: classes of the style sheet.
        anchor: ``middle`` or ``end``; None for its start.
    """
    return element("text", {"x": x, "y": y, "class": style or None, "text-anchor": anchor}, said)


def path(points: Iterable[tuple[float, float]], style: str, opacity: float | None = None) -> Markup:
    """A line through points."""
    told = "".join(
        f"{'L' if place else 'M'}{short(x)} {short(y)}" for place, (x, y) in enumerate(points)
    )
    return element("path", {"d": told, "class": style, "opacity": opacity})


def line(x1: float, y1: float, x2: float, y2: float, style: str) -> Markup:
    """A straight line."""
    return element("line", {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "class": style})


def short(value: float | int) -> str:
    """A number with two decimals at most, and without a sign where it is zero."""
    written = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if written in ("-0", "") else written


def readable(said: str) -> str:
    """Text without what cannot be shown: in its place stands U+FFFD."""
    return UNPRINTABLE.sub("�", said)


def text_width(said: str, size: float) -> float:
    """About how wide a text is at most in an ordinary sans-serif font.

    Args:
        said: the text.
        size: of the font.
    """
    return size * sum(map(_advance, said))


def shortened(said: str, most: int) -> str:
    """A text of so many characters at most, cut in its middle."""
    if len(said) <= most:
        return said
    tail = (most - 1) // 2
    return f"{said[: most - 1 - tail]}…{said[-tail:] if tail else ''}"


def fitted(said: str, size: float, room: float) -> str:
    """A text cut in its middle so that it is no wider than there is room."""
    most = len(said)
    while most > 1 and text_width(shortened(said, most), size) > room:
        most -= 1
    return shortened(said, most)


def _advance(letter: str) -> float:
    if unicodedata.east_asian_width(letter) in "WF":
        return 1.0
    if letter in NARROW:
        return 0.38
    if letter in BROAD:
        return 0.98
    return 0.72 if letter.isupper() else 0.64
