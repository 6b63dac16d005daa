"""The frame of a chart: two axes, a faint grid, round values beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from markupsafe import Markup

from ensemble_kd.report.svg.element import joined, line, text
from ensemble_kd.report.svg.scale import Scale

Form = Callable[[float], str]


@dataclass(frozen=True)
class Frame:
    """Where a chart is drawn.

    Attributes:
        x: from left to right.
        y: from the bottom to the top, so ``y.start`` > ``y.end``.
    """

    x: Scale
    y: Scale

    def place(self, x: float, y: float) -> tuple[float, float]:
        """The place of a point."""
        return self.x(x), self.y(y)

    def horizontal(self, form: Form, label: str = "", most: int = 8, grid: bool = True) -> Markup:
        """The axis below, and lines up from its round values.

        Args:
            form: how its values are written.
            label: what it measures.
            most: how many values it has room for.
            grid: whether lines are drawn.
        """
        bottom, top = self.y.start, self.y.end
        parts = []
        for value in self.x.ticks(most):
            place = self.x(value)
            if grid:
                parts.append(line(place, bottom, place, top, "grid"))
            parts.append(text(place, bottom + 15, form(value), "tick", "middle"))
        if label:
            middle = (self.x.start + self.x.end) / 2
            parts.append(text(middle, bottom + 31, label, "axis-label", "middle"))
        return joined(parts)

    def vertical(self, form: Form, most: int = 6) -> Markup:
        """The axis on the left, and lines to the right from its round values.

        Args:
            form: how its values are written.
            most: how many values it has room for.
        """
        left, right = self.x.start, self.x.end
        parts = []
        for value in self.y.ticks(most):
            place = self.y(value)
            parts.append(line(left, place, right, place, "grid"))
            parts.append(text(left - 6, place + 4, form(value), "tick", "end"))
        return joined(parts)

    def base(self) -> Markup:
        """The line on which the chart stands."""
        return line(self.x.start, self.y.start, self.x.end, self.y.start, "base")


def percent(value: float) -> str:
    """A share as a round value of an axis."""
    return f"{100 * value:.6g}%"


def plain(value: float) -> str:
    """A number as a round value of an axis."""
    return f"{value:.6g}".replace("-", "\N{MINUS SIGN}")


def points(value: float) -> str:
    """A difference of shares in points, with its sign."""
    return signed(100 * value)


def signed(value: float) -> str:
    """A number with its sign, which is a true minus; zero has none."""
    return f"{value:+.6g}".replace("-", "\N{MINUS SIGN}") if value else "0"


def compact(value: float) -> str:
    """2000 as 2k, 3400000 as 3.4M."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"
