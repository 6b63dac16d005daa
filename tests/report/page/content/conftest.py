"""What a page holds, read without a browser."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

UNITS = {"%": 0.01, "k": 1e3, "M": 1e6, "B": 1, "kB": 1e3, "MB": 1e6, "million": 1e6}


class Page(HTMLParser):
    """What a page holds; it fails on elements that are not closed in their order.

    Attributes:
        figures: key, value and text of each number.
        sections: names of the parts.
        tags: every element with its attributes.
        rows: cells of each row of each table.
        text: all that is to be read.
    """

    VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.figures: list[tuple[str, str, str]] = []
        self.sections: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[int]] = []
        self.text = ""
        self._open: list[str] = []
        self._figure: list[str] | None = None
        self.feed(path.read_text())
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        if tag not in self.VOID:
            self._open.append(tag)
        if "data-value" in given:
            self._figure = [str(given["data-key"]), str(given["data-value"]), ""]
        if tag == "section" and "id" in given:
            self.sections.append(str(given["id"]))
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append(0)
        if tag in ("th", "td"):
            self.tables[-1][-1] += 1

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        self.text += " " if tag in ("dt", "dd", "td", "th", "p", "li") else ""
        if self._figure is not None and tag in ("span", "tspan"):
            key, value, text = self._figure
            self.figures.append((key, value, text))
            self._figure = None

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.text += data
        if self._figure is not None:
            self._figure[2] += data

    def check_numbers(self, content: dict[str, Any], points: tuple[str, ...]) -> None:
        """Every number is that of a file, and what is written is that number, rounded.

        Args:
            content: of the file.
            points: ends of the keys of shares that are written in points where they are no percent.
        """
        assert self.figures
        for key, value, text in self.figures:
            exact = at(content, key)
            assert repr(exact) == value, key
            written, rounding = said(text)
            expected = 100 * exact if "%" not in text and key.endswith(points) else exact
            assert abs(written - expected) <= rounding * 1.0001 + 1e-12, (key, text)

    def check_tables(self) -> None:
        """All rows of a table have as many cells."""
        for rows in self.tables:
            assert len(set(rows)) == 1, rows


def at(content: Any, key: str) -> Any:
    """What stands at a key whose parts are joined by dots, though a name may hold dots itself."""
    if isinstance(content, list):
        first, _, rest = key.partition(".")
        return at(content[int(first)], rest) if rest else content[int(first)]
    if key in content:
        return content[key]
    name = next(name for name in content if key.startswith(f"{name}."))
    return at(content[name], key[len(name) + 1 :])


def said(text: str) -> tuple[float, float]:
    """A number as it was written, and how much rounding may have changed it."""
    found = re.fullmatch(
        r"([+\N{MINUS SIGN}]?)([\d,]+)(?:\.(\d+))?\s?(%|[kM]?B|[kM]|million)?", text
    )
    assert found is not None, text
    sign, whole, digits, unit = found.groups()
    factor = UNITS[unit] if unit else 1.0
    value = float(f"{whole.replace(',', '')}.{digits or 0}")
    return (-1 if sign == "\N{MINUS SIGN}" else 1) * value * factor, 0.5 * 10.0 ** -len(
        digits or ""
    ) * factor


@pytest.fixture
def read_page() -> type[Page]:
    """Reads what a page holds."""
    return Page
