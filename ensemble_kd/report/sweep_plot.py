"""The drawing of ``sweep.png``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.ticker import MaxNLocator

from ensemble_kd.report.picture import FAINT, INK, MARGIN, ROLE_COLOURS, Picture, tidy

MOST = 40
"""Groups in one picture; of more, those that are best on the validation split."""

LONGEST = 64
PLOT, ROW = 5.2, 0.3


def draw_sweep(summary: Mapping[str, Any]) -> Picture:
    """A dot per job and a bar at the mean, one row per setting.

    It shows the gain over the control or, where no job had a control, the student's accuracy.

    Args:
        summary: the content of ``sweep.json``.
    """
    groups = _shown(summary["groups"])
    gains = any(group["gain"]["test"]["n"] for group in groups)
    what = "gain" if gains else "student"
    dots = _dots(summary, what)
    labels = [_short(group["label"]) for group in groups]
    left = MARGIN + 0.15 + 0.068 * max(len(label) for label in labels)
    width = left + PLOT + MARGIN + 1.1
    height = 0.75 + ROW * len(groups) + 0.75
    picture = Picture(max(width, 7.5), height)
    title = "Gain over the same student without teachers" if gains else "Accuracy of the student"
    left_out = len(summary["groups"]) - len(groups)
    best = f"; the {MOST} best on validation, {left_out} more in sweep.json" if left_out else ""
    picture.heading(0.3, title, f"test split; dots: seeds, bar: mean{best}")
    axes = picture.axes_at(left, 0.65, PLOT, height - 1.3)
    tidy(axes, grid="x")
    axes.spines["left"].set_visible(False)
    axes.set_ylim(len(groups) - 0.4, -0.6)
    axes.set_yticks(range(len(groups)), labels, color=INK, fontsize=8)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("points of accuracy" if gains else "%", fontsize=8, color=FAINT)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10]))
    if gains:
        axes.axvline(0, color=ROLE_COLOURS["control"], linewidth=1.2, zorder=1)
    for row, group in enumerate(groups):
        values = dots.get(group["label"], [])
        axes.scatter(
            values,
            [row] * len(values),
            s=30,
            color=ROLE_COLOURS["student"],
            alpha=0.6,
            linewidth=0,
            zorder=3,
        )
        found = group[what]["test"]
        if found["mean"] is None:
            continue
        mean = 100 * found["mean"]
        if len(values) > 1:
            axes.plot([mean, mean], [row - 0.32, row + 0.32], color=INK, linewidth=2, zorder=4)
        spread = "" if found["std"] is None else f" ± {100 * found['std']:.1f}"
        axes.annotate(
            f"{mean:+.1f}{spread}" if gains else f"{mean:.1f}{spread}",
            xy=(1, row),
            xycoords=axes.get_yaxis_transform(),
            xytext=(8, 0),
            textcoords="offset points",
            fontsize=8,
            color=INK,
            va="center",
        )
    axes.margins(x=0.06)
    return picture


def _shown(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if len(groups) <= MOST:
        return groups
    return sorted(groups, key=lambda group: -(group["student"]["val"]["mean"] or 0.0))[:MOST]


def _dots(summary: Mapping[str, Any], what: str) -> dict[str, list[float]]:
    """Values of the jobs in percent, by the label of their group."""
    dots: dict[str, list[float]] = {}
    for job in summary["jobs"]:
        if job[what]["test"] is not None:
            dots.setdefault(job["group"], []).append(100 * job[what]["test"])
    return dots


def _short(label: str) -> str:
    if len(label) <= LONGEST:
        return label
    half = (LONGEST - 1) // 2
    return f"{label[:half]}…{label[-half:]}"
