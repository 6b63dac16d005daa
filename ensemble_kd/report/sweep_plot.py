"""The drawing of ``sweep.png``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ensemble_kd.report.picture import FAINT, INK, MARGIN, ROLE_COLOURS, Picture, tidy
from ensemble_kd.report.roles import ALONE
from ensemble_kd.report.sweep_metrics import METRICS, Metric

MOST = 40
"""Groups in one picture; of more, those that are best on the validation split."""

LONGEST = 64
PLOT, ROW, BESIDE = 5.2, 0.3, 2.15
VERDICTS = {"HELPS": "#007A5A", "DOES NOT HELP": "#B34700", "INCONCLUSIVE": FAINT}


def draw_sweep(summary: Mapping[str, Any]) -> Picture:
    """A dot per job, a bar at the mean and its 95% interval, one row per setting.

    It shows the gain over the reference, with the verdict, or, where no job has a control, the
    student's values.

    Args:
        summary: the content of ``sweep.json``.
    """
    metric = METRICS[summary["metric"]["name"]]
    groups = _shown(summary["groups"], metric)
    gains = any(group["gain"]["test"]["n"] for group in groups)
    labels = [_short(group["label"]) for group in groups]
    left = MARGIN + 0.15 + 0.068 * max(len(label) for label in labels)
    height = 0.75 + ROW * len(groups) + 0.75
    picture = Picture(max(left + PLOT + MARGIN + BESIDE, 7.5), height)
    _write_headings(picture, summary, gains, len(groups))
    axes = picture.axes_at(left, 0.65, PLOT, height - 1.3)
    tidy(axes, grid="x")
    axes.spines["left"].set_visible(False)
    axes.set_ylim(len(groups) - 0.4, -0.6)
    axes.set_yticks(range(len(groups)), labels, color=INK, fontsize=8)
    axes.tick_params(axis="y", length=0)
    percent = "%" if metric.factor == 100 else metric.title
    axes.set_xlabel(metric.unit if gains else percent, fontsize=8, color=FAINT)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10]))
    if gains:
        axes.axvline(0, color=ROLE_COLOURS["control"], linewidth=1.2, zorder=1)
    for row, group in enumerate(groups):
        values = _dots(summary, group["label"], gains, metric)
        _draw_row(axes, row, values, group, summary["reference"] if gains else None, metric)
    axes.margins(x=0.06)
    return picture


def _write_headings(picture: Picture, summary: Mapping[str, Any], gains: bool, shown: int) -> None:
    reference, metric = summary["reference"], METRICS[summary["metric"]["name"]]
    over = "the same student without teachers" if reference == ALONE else reference
    title = f"Gain over {over}" if gains else f"{metric.title} of the student"
    every = len(summary["groups"])
    best = f"; the {shown} of {every} best on validation" if shown < every else ""
    interval = ", line: 95% interval" if gains else ""
    note = f"test split; dots: seeds, bar: mean{interval}{best}"
    picture.heading(0.3, title[0].upper() + title[1:], note)


def _draw_row(
    axes: Axes,
    row: int,
    values: Sequence[float],
    group: Mapping[str, Any],
    reference: str | None,
    metric: Metric,
) -> None:
    """The dots of a setting, its mean and what is said of it; of gains where there is a reference.

    Args:
        axes: drawn into.
        row: its place.
        values: of the jobs, as they are written.
        group: an entry of ``groups``.
        reference: that of the gains.
        metric: of the sweep.
    """
    colour = ROLE_COLOURS["student"]
    axes.scatter(values, [row] * len(values), s=30, color=colour, alpha=0.6, linewidth=0, zorder=3)
    found = group["student" if reference is None else "gain"]["test"]
    if found["mean"] is None:
        return
    mean = metric.factor * found["mean"]
    against = group["against"].get(reference)
    if against is not None and against["low"] is not None:
        ends = [metric.factor * against["low"], metric.factor * against["high"]]
        axes.plot(ends, [row, row], color=INK, linewidth=1, zorder=2)
    if len(values) > 1:
        axes.plot([mean, mean], [row - 0.32, row + 0.32], color=INK, linewidth=2, zorder=4)
    sign = "" if reference is None else "+"
    deviation = metric.factor * (found["std"] or 0.0)
    spread = "" if found["std"] is None else f" ± {deviation:.{metric.digits}f}"
    _beside(axes, row, 8, f"{mean:{sign}.{metric.digits}f}{spread}", INK)
    if against is not None:
        _beside(axes, row, 78, against["verdict"], VERDICTS[against["verdict"]])


def _beside(axes: Axes, row: int, offset: int, text: str, colour: str) -> None:
    """Text on the right of the axes, so many points away from them."""
    axes.annotate(
        text,
        xy=(1, row),
        xycoords=axes.get_yaxis_transform(),
        xytext=(offset, 0),
        textcoords="offset points",
        fontsize=8,
        color=colour,
        va="center",
    )


def _shown(groups: list[dict[str, Any]], metric: Metric) -> list[dict[str, Any]]:
    if len(groups) <= MOST:
        return groups

    def worst_last(group: Mapping[str, Any]) -> float:
        mean = group["student"]["val"]["mean"]
        return float("inf") if mean is None else -metric.goodness(mean)

    return sorted(groups, key=worst_last)[:MOST]


def _dots(summary: Mapping[str, Any], label: str, gains: bool, metric: Metric) -> list[float]:
    """Values of the jobs of a group, as they are written."""
    own = [job for job in summary["jobs"] if job["group"] == label]
    found = [
        job["gain"].get(summary["reference"], {}).get("test") if gains else job["student"]["test"]
        for job in own
    ]
    return [metric.factor * each for each in found if each is not None]


def _short(label: str) -> str:
    if len(label) <= LONGEST:
        return label
    half = (LONGEST - 1) // 2
    return f"{label[:half]}…{label[-half:]}"
