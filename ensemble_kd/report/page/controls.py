"""The section of a run's page on its controls."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from ensemble_kd.groups import options
from ensemble_kd.paths import conf_dir
from ensemble_kd.report.page.content import Run
from ensemble_kd.report.page.parts import (
    Cell,
    Figure,
    Row,
    Section,
    Table,
    count,
    percent,
    points,
    sentence,
)
from ensemble_kd.report.roles import ALONE, in_order, role
from ensemble_kd.report.svg import Drawing, Mark, row_chart
from ensemble_kd.report.svg import Row as Bar
from ensemble_kd.report.svg.frame import points as points_tick

if TYPE_CHECKING:
    from ensemble_kd.predictions import Predictions

STUDENT = "student"
SURE = 1.96
"""Standard errors on each side of a 95% interval."""


class Paired(NamedTuple):
    """Two networks on the same samples: how many each wins, and the error of the difference."""

    won: int
    lost: int
    error: float


def controls(run: Run) -> Section | None:
    """The student against the same student taught in other ways."""
    accuracies = {
        name: run.numbers.at("predictors", name, "test", "accuracy")
        for name in in_order(run.results["predictors"])
    }
    own = accuracies.get(STUDENT)
    gains = {
        name: own - accuracy
        for name, accuracy in sorted(accuracies.items(), key=lambda each: each[0] != ALONE)
        if role(name) == "control" and own is not None and accuracy is not None
    }
    if not gains:
        return None
    pairs = {name: paired(run.predictions.get("test"), name) for name in gains}
    return Section(
        "controls",
        "Controls",
        lead="The same network, seed and number of epochs, taught in other ways.",
        figures=[_figure(gains, pairs)],
        tables=[_table(run, gains, pairs)],
        note=_single(run, list(gains)),
    )


def paired(said: Predictions | None, control: str) -> Paired | None:
    """The student against a control on the labelled samples.

    Args:
        said: of a split; None where predictions were not kept.
        control: its name.

    Returns:
        None where there is nothing to compare.
    """
    if said is None or not {STUDENT, control} <= set(said.logits):
        return None
    known = said.target >= 0
    student, other = (
        (said.logits[name].argmax(-1) == said.target)[known] for name in (STUDENT, control)
    )
    n, won, lost = int(known.sum()), int((student & ~other).sum()), int((other & ~student).sum())
    if n == 0:
        return None
    return Paired(won, lost, math.sqrt(max(won + lost - (won - lost) ** 2 / n, 0.0)) / n)


def _figure(gains: Mapping[str, float], pairs: Mapping[str, Paired | None]) -> Figure:
    bars = []
    for name, gain in gains.items():
        pair, note, interval = pairs[name], points(gain), None
        if pair is not None:
            half = SURE * pair.error
            note, interval = f"{note} ± {100 * half:.1f}", (gain - half, gain + half)
        label = name.removeprefix("control/")
        bars.append(Bar(label, [Mark(gain, "student")], interval, note, "student"))
    drawing = Drawing(
        "controls-chart",
        "Gain of the student over each control",
        "; ".join(f"{bar.label} {bar.note}" for bar in bars),
    )
    label = "points of test accuracy by which the student is better"
    caption = (
        "Right of the line the student is better. Bars are 95% intervals over the test samples, "
        "which both networks share; they say nothing of other seeds."
    )
    return Figure(row_chart(drawing, bars, points_tick, label, zero=0.0), caption)


def _table(run: Run, gains: Mapping[str, float], pairs: Mapping[str, Paired | None]) -> Table:
    columns = ["control", "the same student", "accuracy", "student's gain"]
    caption = "Accuracy on the test split"
    whole = all(pairs.values())
    if whole:
        columns += ["won", "lost"]
        caption += "; won and lost: samples that only the student, only the control gets right"
    rows = []
    said = options([conf_dir()])["control"]
    for name, gain in gains.items():
        accuracy = run.numbers.show(("predictors", name, "test", "accuracy"), percent)
        cells: list[Cell] = [_told(said, name), accuracy, points(gain)]
        pair = pairs[name]
        if whole and pair is not None:
            cells += [count(pair.won), count(pair.lost)]
        rows.append(Row(name, cells, "control"))
    return Table(caption, columns, rows, frozenset({1}))


def _told(said: Mapping[str, str], name: str) -> str:
    """What the file of a control says that it is; nothing of a user's own."""
    return said.get(name.split("/")[1], "").partition(":")[0]


def _single(run: Run, names: list[str]) -> Cell:
    """The mean of the students of one teacher, and the one that is best on validation."""
    alone = {
        name: accuracy
        for name in names
        if name.startswith("control/single_teacher")
        and (accuracy := run.numbers.at("predictors", name, "test", "accuracy")) is not None
    }
    if len(alone) < 2:
        return ""
    numbers = run.numbers
    best = max(alone, key=lambda name: numbers.at("predictors", name, "val", "accuracy") or 0.0)
    mean = sum(alone.values()) / len(alone)
    shown = numbers.show(("predictors", best, "test", "accuracy"), percent)
    return sentence(
        f"Students of a single teacher: {percent(mean)} on average, ",
        f"the best of them on validation ({best}) ",
        shown,
        ".",
    )
