"""The drawing of ``plots/curves.png``."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ensemble_kd.report.curves import Point, by_learner
from ensemble_kd.report.picture import (
    FAINT,
    INK,
    MARGIN,
    TERM_COLOURS,
    Picture,
    shades,
    tidy,
)
from ensemble_kd.report.placement import spread
from ensemble_kd.report.roles import in_order, role

ACCURACY = "val_accuracy"
WIDTH, TOP, ROW = 10.0, 4.3, 1.65
LABELS = 1.5  # inches beside the upper axes
Series = Sequence[tuple[int, float]]


def draw_curves(points: Sequence[Point]) -> Picture:
    """Validation accuracy of all learners above, the loss terms of each of them below.

    Args:
        points: the rows of ``curves.csv``.
    """
    learners = by_learner(points)
    names = in_order(learners)
    accuracies = {name: learners[name][ACCURACY] for name in names if ACCURACY in learners[name]}
    terms = {name: _terms(learners[name]) for name in names}
    terms = {name: own for name, own in terms.items() if own}

    columns = min(max(len(terms), 2), 4)
    rows = math.ceil(len(terms) / columns)
    picture = Picture(WIDTH, TOP + (0.7 + rows * ROW if rows else 0.0))
    picture.heading(0.3, "Validation accuracy", "%, after each epoch of each learner")
    axes = picture.axes_at(MARGIN + 0.3, 0.6, WIDTH - 2 * MARGIN - 0.3 - LABELS, TOP - 1.2)
    _draw_accuracies(axes, accuracies)
    if rows:
        _draw_terms(picture, terms, columns)
    return picture


def _terms(own: Mapping[str, Series]) -> dict[str, Series]:
    """The loss terms among what a learner logged."""
    return {what: series for what, series in own.items() if not what.startswith("val_")}


def _draw_accuracies(axes: Axes, accuracies: Mapping[str, Series]) -> None:
    tidy(axes)
    axes.set_xlabel("epoch", fontsize=8, color=FAINT)
    axes.xaxis.set_major_locator(_epochs(10))
    if not accuracies:
        axes.text(0.5, 0.5, "none was logged", color=FAINT, ha="center", transform=axes.transAxes)
        return
    last = max(epoch for series in accuracies.values() for epoch, _ in series) + 1
    axes.set_xlim(0 if last > 1 else 0.5, last + 0.5 if last == 1 else last * 1.01)
    axes.set_ylim(*_window(accuracies.values()))
    colours = shades(accuracies)
    for name, series in accuracies.items():
        axes.plot(
            [epoch + 1 for epoch, _ in series],
            [100 * value for _, value in series],
            color=colours[name],
            marker="o" if len(series) == 1 else None,
            markersize=4,
            linewidth={"student": 2.4, "control": 1.8}.get(role(name), 1.2),
            linestyle=(0, (4, 1.5)) if role(name) == "control" else "-",
            zorder=3 if role(name) in ("student", "control") else 2,
        )
    _label_ends(axes, accuracies, colours)


def _window(accuracies: Collection[Series]) -> tuple[float, float]:
    """Limits in percent; the first third of each curve, where it is steep, may fall outside."""
    late = [100 * v for series in accuracies for _, v in series[len(series) // 3 :]]
    low, high = min(late), max(100 * v for series in accuracies for _, v in series)
    room = max(0.06 * (high - low), 2.0)
    return max(low - room, -1.0), min(high + room, 101.0)


def _epochs(ticks: int) -> MaxNLocator:
    return MaxNLocator(integer=True, nbins=ticks, steps=[1, 2, 5, 10], min_n_ticks=1)


def _label_ends(axes: Axes, accuracies: Mapping[str, Series], colours: Mapping[str, str]) -> None:
    """Each learner's name and last value beside the axes, joined to the end of its curve."""
    low, high = axes.get_ylim()
    left, right = axes.get_xlim()
    ends = {name: (series[-1][0] + 1, 100 * series[-1][1]) for name, series in accuracies.items()}
    # A label of 8 points needs about 0.165 of an inch.
    gap = (high - low) * 0.165 / (TOP - 1.2)
    wanted = [min(max(y, low), high) for _, y in ends.values()]
    for (name, (x, y)), place in zip(ends.items(), spread(wanted, gap, low, high), strict=True):
        axes.plot([x, right], [y, y], color=colours[name], linewidth=0.7, linestyle=(0, (1, 2)))
        axes.annotate(
            f"{name}  {y:.1f}",
            xy=(right, y),
            xytext=(right + 0.03 * (right - left), place),
            annotation_clip=False,
            fontsize=8,
            fontweight="bold" if role(name) == "student" else "normal",
            color=colours[name],
            va="center",
            arrowprops={
                "arrowstyle": "-",
                "color": colours[name],
                "linewidth": 0.6,
                "alpha": 0.6,
                "shrinkA": 1,
                "shrinkB": 0,
                "relpos": (0, 0.5),
            },
        )


def _draw_terms(picture: Picture, terms: Mapping[str, Mapping[str, Series]], columns: int) -> None:
    kinds = list(dict.fromkeys(kind for own in terms.values() for kind in own))
    colours = _term_colours(kinds)
    picture.heading(TOP + 0.2, "Loss terms", "mean over each epoch, as weighted in the loss")
    picture.legend(
        handles=[Line2D([], [], color=colours[kind], linewidth=2, label=kind) for kind in kinds],
        loc="center left",
        bbox_to_anchor=(1.6 / WIDTH, 1 - (TOP + 0.2) / picture.get_figheight()),
        ncols=min(len(kinds), 6),
        frameon=False,
        fontsize=8,
        labelcolor=INK,
        handlelength=1.4,
        columnspacing=1.4,
    )
    width = (WIDTH - 2 * MARGIN) / columns
    for number, (name, own) in enumerate(terms.items()):
        row, column = divmod(number, columns)
        axes = picture.axes_at(
            MARGIN + 0.3 + column * width, TOP + 0.75 + row * ROW, width - 0.45, ROW - 0.7
        )
        tidy(axes)
        axes.set_title(name, fontsize=8.5, color=INK, loc="left", pad=4)
        axes.xaxis.set_major_locator(_epochs(4))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))
        for kind, series in own.items():
            axes.plot(
                [epoch + 1 for epoch, _ in series],
                [value for _, value in series],
                color=colours[kind],
                linewidth=1.6,
                marker="o" if len(series) == 1 else None,
                markersize=3,
            )
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0 if axes.dataLim.ymin >= 0 else None)


def _term_colours(kinds: Sequence[str]) -> dict[str, str]:
    """The label term is ink in every picture; the others take colours in the order of logging."""
    others = [kind for kind in kinds if kind != "label"]
    coloured = {kind: TERM_COLOURS[i % len(TERM_COLOURS)] for i, kind in enumerate(others)}
    return {kind: coloured.get(kind, INK) for kind in kinds}
