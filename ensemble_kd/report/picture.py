"""Figures without pyplot and its global state, in one style."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from ensemble_kd.report.roles import Role, role

DPI = 150
INK = "#222222"
FAINT = "#707070"
GRID = "#e8e8e8"
MARGIN = 0.3

# Okabe and Ito's colours and darker kin of them, which colour-blind readers can tell apart.
ROLE_COLOURS: dict[Role, str] = {
    "teacher": "#0072B2",
    "ensemble": "#00334D",
    "assistant": "#009E73",
    "peer": "#A8558A",
    "control": "#5A5A5A",
    "student": "#D55E00",
    "other": "#B58A00",
}
TERM_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#0072B2", "#D55E00", "#8C8C00")


class Picture(Figure):
    """A figure that a notebook shows and whose file is the same, byte for byte, each time.

    Places are given in inches from the upper left corner.

    Args:
        width: in inches.
        height: in inches.
    """

    def __init__(self, width: float, height: float) -> None:
        super().__init__(figsize=(width, height), dpi=DPI, facecolor="white")

    def axes_at(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes of a given size at a given place."""
        full_width, full_height = self.get_size_inches()
        return self.add_axes(
            (
                left / full_width,
                1 - (top + height) / full_height,
                width / full_width,
                height / full_height,
            )
        )

    def heading(self, top: float, title: str, note: str = "") -> None:
        """A title on the left and a note on the right of one line."""
        width, height = self.get_size_inches()
        x, y = MARGIN / width, 1 - top / height
        self.text(x, y, title, fontsize=11, fontweight="bold", color=INK, va="center")
        self.text(1 - x, y, note, fontsize=8, color=FAINT, va="center", ha="right")

    def png(self) -> bytes:
        """The figure as a PNG file."""
        file = io.BytesIO()
        # The default metadata holds the version of matplotlib.
        self.savefig(file, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
        return file.getvalue()

    def _repr_png_(self) -> bytes:
        return self.png()


def tidy(axes: Axes, grid: Literal["both", "x", "y"] = "both") -> None:
    """Axes with little ink: two spines, a faint grid behind the data, small ticks."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#bbbbbb")
    axes.tick_params(colors=FAINT, labelsize=8, length=3, width=0.6, which="both")
    axes.set_axisbelow(True)
    axes.grid(True, axis=grid, color=GRID, linewidth=0.7)


def shades(names: Iterable[str]) -> dict[str, str]:
    """A colour for each predictor: its role's, lighter from one to the next of the same role."""
    groups: dict[Role, list[str]] = {}
    for name in names:
        groups.setdefault(role(name), []).append(name)
    return {
        name: _lighter(ROLE_COLOURS[group], 0.55 * number / max(len(members), 3))
        for group, members in groups.items()
        for number, name in enumerate(members)
    }


def _lighter(colour: str, share: float) -> str:
    """A colour mixed with white."""
    red, green, blue = (part + (1 - part) * share for part in to_rgb(colour))
    return to_hex((red, green, blue))
