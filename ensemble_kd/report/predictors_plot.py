"""The drawing of ``plots/predictors.png``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from ensemble_kd.report.contract import Results
from ensemble_kd.report.picture import FAINT, MARGIN, ROLE_COLOURS, Picture, shades, tidy
from ensemble_kd.report.placement import Box, place_labels
from ensemble_kd.report.roles import ALONE, Role, in_order, role

WIDTH, HEIGHT = 7.5, 4.6
SHOWN = 5
"""Names that have room in a line."""
MARKERS: dict[Role, str] = {"ensemble": "D", "student": "o", "control": "o"}
SIZES: dict[Role, float] = {"ensemble": 55, "student": 75, "control": 115}


class Spot(NamedTuple):
    """A predictor's place: parameters, accuracy in percent, half its error bar."""

    x: float
    y: float
    error: float


def draw_predictors(results: Results) -> Picture:
    """Test accuracy against parameters, one labelled spot per predictor.

    Args:
        results: the content of ``results.json``.
    """
    spots = _spots(results)
    picture = Picture(WIDTH, HEIGHT)
    counted = {entry["test"]["n"] for entry in results["predictors"].values()}
    note = f"bars: one standard error, n = {max(counted):,}" if counted else ""
    picture.heading(0.3, "Test accuracy in % by number of parameters", note)
    axes = picture.axes_at(MARGIN + 0.4, 0.6, WIDTH - 2 * MARGIN - 0.45, HEIGHT - 1.2)
    tidy(axes)
    axes.set_xlabel(f"parameters{_unknown(results)}", fontsize=8, color=FAINT)
    if not spots:
        axes.text(0.5, 0.5, "no labels", color=FAINT, ha="center", transform=axes.transAxes)
        return picture
    _set_scales(axes, list(spots.values()))
    colours = shades(spots)
    for name, spot in spots.items():
        part = role(name)
        if part in ("student", "control", "ensemble"):
            axes.errorbar(spot.x, spot.y, yerr=spot.error, color=colours[name], alpha=0.4, zorder=2)
        axes.scatter(
            spot.x,
            spot.y,
            s=SIZES.get(part, 45),
            marker=MARKERS.get(part, "o"),
            facecolor="white" if part == "control" else colours[name],
            edgecolor=colours[name] if part == "control" else "white",
            linewidth=1.8 if part == "control" else 0.8,
            zorder=5 if part in ("student", "control") else 4,
        )
    _join(axes, spots)
    _label(picture, axes, spots)
    return picture


def _spots(results: Results) -> dict[str, Spot]:
    spots = {}
    for name in in_order(results["predictors"]):
        entry = results["predictors"][name]
        accuracy, n, size = entry["test"]["accuracy"], entry["test"]["n"], entry["parameters"]
        if accuracy is not None and n > 0 and size is not None:
            error = math.sqrt(accuracy * (1 - accuracy) / n)
            spots[name] = Spot(max(size, 1), 100 * accuracy, 100 * error)
    return spots


def _unknown(results: Results) -> str:
    """The predictors that have no place, because nobody knows how large they are."""
    lacking = [
        f"{name} {100 * accuracy:.1f}"
        for name in in_order(results["predictors"])
        if (entry := results["predictors"][name])["parameters"] is None
        and (accuracy := entry["test"]["accuracy"]) is not None
    ]
    if not lacking:
        return ""
    more = f" and {len(lacking) - SHOWN} more" if len(lacking) > SHOWN else ""
    return f"  (of unknown size: {', '.join(lacking[:SHOWN])}{more})"


def _set_scales(axes: Axes, spots: Sequence[Spot]) -> None:
    axes.set_xscale("log")
    low, high = min(spot.x for spot in spots), max(spot.x for spot in spots)
    room = max((high / low) ** 0.12, 1.6)
    axes.set_xlim(low / room, high * room)
    few = math.log10(high * room * room / low) < 2.5
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    bottom = min(spot.y - spot.error for spot in spots)
    top = max(spot.y + spot.error for spot in spots)
    margin = max(0.1 * (top - bottom), 0.5)
    axes.set_ylim(max(bottom - margin, -2), min(top + margin, 102))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10]))


def _short(value: float) -> str:
    """2000 as 2 k, 3400000 as 3.4 M."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def _join(axes: Axes, spots: Mapping[str, Spot]) -> None:
    """An arrow from the control to the student: what the teachers changed."""
    if ALONE not in spots or "student" not in spots:
        return
    start, end = spots[ALONE], spots["student"]
    axes.annotate(
        "",
        xy=(end.x, end.y),
        xytext=(start.x, start.y),
        zorder=3,
        arrowprops={
            "arrowstyle": "-|>",
            "color": ROLE_COLOURS["student"],
            "linewidth": 1.4,
            "shrinkA": 6,
            "shrinkB": 6,
        },
    )


def _label(picture: Picture, axes: Axes, spots: Mapping[str, Spot]) -> None:
    """Names and accuracies beside the spots, where they cover neither a spot nor one another."""
    points = 72 / picture.dpi
    frame = axes.get_window_extent()
    texts = {
        name: axes.annotate(
            f"{name}  {spot.y:.1f}",
            xy=(spot.x, spot.y),
            xytext=(0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=8.5,
            fontweight="bold" if role(name) == "student" else "normal",
            color=ROLE_COLOURS[role(name)],
            zorder=6,
        )
        for name, spot in spots.items()
    }
    anchors, sizes = [], []
    for name, text in texts.items():
        x, y = axes.transData.transform((spots[name].x, spots[name].y))
        extent = text.get_window_extent()
        anchors.append((x * points, y * points))
        sizes.append((extent.width * points, extent.height * points))
    edges = Box(*(edge * points for edge in frame.extents))
    places = place_labels(anchors, sizes, edges)
    for (name, text), place in zip(texts.items(), places, strict=True):
        (x, y), (u, v) = place.start, place.end
        middle = (place.box.left + place.box.right) / 2
        text.set_position((middle - x, v - y))
        if abs(v - y) > 1:
            axes.annotate(
                "",
                xy=(spots[name].x, spots[name].y),
                xytext=(u - x, v - y),
                textcoords="offset points",
                zorder=3,
                arrowprops={
                    "arrowstyle": "-",
                    "color": ROLE_COLOURS[role(name)],
                    "linewidth": 0.6,
                    "shrinkA": 0,
                    "shrinkB": 3,
                },
            )
