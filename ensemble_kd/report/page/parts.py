"""What a page is made of: numbers that carry their key, tables, figures, sections."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from ensemble_kd.report.svg import element

Key = Sequence[str | int]
Cell = Markup | str
MINUS = "\N{MINUS SIGN}"
NOTHING = element("span", {"class": "none", "aria-label": "not known"}, "\N{EN DASH}")


class Numbers:
    """The numbers of a JSON file, as a page shows them.

    Each stands in an element with its key in ``data-key`` and its exact value, as Python writes it,
    in ``data-value``.

    Args:
        content: of the file.
    """

    def __init__(self, content: Mapping[str, Any]) -> None:
        self.content = content

    def at(self, *key: str | int) -> Any:
        """What stands at a key; None if there is no such thing."""
        found: Any = self.content
        for part in key:
            if isinstance(found, Mapping):
                found = found.get(part)
            elif isinstance(found, list) and isinstance(part, int) and part < len(found):
                found = found[part]
            else:
                return None
        return found

    def show(self, key: Key, form: Callable[[float], str], tag: str = "span") -> Markup:
        """The number at a key, or a dash where there is none.

        Args:
            key: the way to it.
            form: how it is written.
            tag: ``span``, or ``tspan`` in a picture.
        """
        value = self.at(*key)
        if not isinstance(value, int | float) or isinstance(value, bool):
            return NOTHING if tag == "span" else Markup()
        named = {"data-key": ".".join(map(str, key)), "data-value": repr(value)}
        return element(tag, {"class": "n", **named}, form(value))


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        head: its name.
        cells: what stands behind it, one for each further column.
        style: a class of the style sheet, such as the role of a network.
    """

    head: Cell
    cells: Sequence[Cell]
    style: str = ""


@dataclass(frozen=True)
class Table:
    """A table whose first column holds names.

    Attributes:
        caption: what it shows.
        columns: its headings.
        rows: all of one length.
        text: positions of the columns, beside the first, that hold text and not numbers.
        folded: whether it is shown only to those who ask, because a picture says the same.
    """

    caption: Cell
    columns: Sequence[str]
    rows: Sequence[Row]
    text: frozenset[int] = frozenset()
    folded: bool = False


@dataclass(frozen=True)
class Figure:
    """A picture.

    Attributes:
        drawing: SVG.
        caption: below or beside it.
        title: above it, of one among several.
    """

    drawing: Markup
    caption: Cell = ""
    title: Cell = ""


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        name: of letters and hyphens; links lead there.
        title: its heading.
        lead: what it is about, before all else.
        figures: wide ones, each with its caption beside it.
        panels: small ones side by side.
        more: further ones, shown only to those who ask.
        keys: what the colours of the panels mean: a class of the style sheet, by name.
        tables: below the figures.
        note: the last word.
        template: of what has a form of its own.
        content: for that template.
    """

    name: str
    title: str
    lead: Cell = ""
    figures: Sequence[Figure] = ()
    panels: Sequence[Figure] = ()
    more: Sequence[Figure] = ()
    keys: Mapping[str, str] = field(default_factory=dict)
    tables: Sequence[Table] = ()
    note: Cell = ""
    template: str = ""
    content: Any = None


def sentence(*parts: Cell) -> Markup:
    """Text and numbers put together; text is escaped."""
    return Markup("").join(parts)


def percent(value: float) -> str:
    """0.941 as 94.1%."""
    return f"{100 * value:.1f}%"


def points(value: float) -> str:
    """A difference of shares, 0.033 as +3.3."""
    return signed(100 * value, 1)


def signed(value: float, digits: int) -> str:
    """A number with its sign, which is a true minus; nothing is neither more nor less."""
    written = f"{abs(value):.{digits}f}"
    if not float(written):
        return written
    return ("+" if value > 0 else MINUS) + written


def decimals(value: float) -> str:
    """0.1512 as 0.151."""
    return f"{value:.3f}".replace("-", MINUS)


def count(value: float) -> str:
    """49818 as 49,818."""
    return f"{value:,.0f}"


def size(value: float) -> str:
    """49,818, or 1.34 billion."""
    for limit, unit in ((1e12, "trillion"), (1e9, "billion"), (1e8, "million")):
        if value >= limit:
            shown = 1e6 if unit == "million" else limit
            return f"{value / shown:.3g} {unit}"
    return count(value)


def octets(value: float) -> str:
    """A number of bytes: 199 kB."""
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= limit:
            return (
                f"{value / limit:.3g} {unit}"
                if value < 999.5 * limit
                else f"{value / limit:,.0f} {unit}"
            )
    return f"{value:.0f} B"


def duration(value: float) -> str:
    """Milliseconds with three digits that count."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def times(value: float) -> str:
    """A ratio, 220.4 as 220 and 2.31 as 2.3."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
