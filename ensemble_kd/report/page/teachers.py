"""Sections of a run's page on teachers: what passed from them, and what each of them is worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from ensemble_kd.report.page.content import SPLITS, Run
from ensemble_kd.report.page.parts import (
    Cell,
    Figure,
    Numbers,
    Row,
    Section,
    Table,
    count,
    decimals,
    percent,
    points,
    sentence,
)
from ensemble_kd.report.roles import in_order, role
from ensemble_kd.report.spared import spared
from ensemble_kd.report.svg import Drawing, Mark, row_chart
from ensemble_kd.report.svg import Row as Bar
from ensemble_kd.report.svg.frame import points as points_tick

TOGETHER = (
    ("oracle_accuracy", "at least one teacher is right", percent),
    ("disagreement", "two teachers name different classes, mean over pairs", percent),
    ("q_statistic", "Yule's Q of their errors, mean over pairs (1: they err together)", decimals),
    ("js_divergence", "Jensen-Shannon divergence of their distributions, bits", decimals),
)


def transfer(run: Run) -> Section | None:
    """What passed from the teachers to the student, and to each control."""
    found = run.results["transfer"]
    if not found:
        return None
    # The student first, then what it is to be held against.
    names = sorted(in_order(found), key=lambda name: role(name) != "student")
    rows = [
        Row(
            name,
            [
                run.numbers.show(("transfer", name, "test", "error_inheritance"), percent),
                _of(run.numbers, name, "positive"),
                _of(run.numbers, name, "negative"),
            ],
            role(name),
        )
        for name in names
    ]
    columns = ["learner", "errors inherited", "knowledge taken over", "knowledge lost"]
    return Section(
        "transfer",
        "Knowledge transfer and inherited errors",
        tables=[Table("Held against the ensemble, on the test split", columns, rows)],
        note="Errors inherited: of the learner's errors, the share in which it names the very "
        "class that the ensemble names. Networks that learn the same labels err alike, so that it "
        "says something only beside a control. Knowledge taken over: of the samples that the "
        "ensemble gets right and the student without teachers does not, the share that the learner "
        "gets right. Knowledge lost: of those that the student without teachers gets right and the "
        "ensemble does not, the share that the learner gets wrong.",
    )


def teachers(run: Run) -> Section | None:
    """How unlike the teachers are, and what each adds."""
    together: Mapping[str, Any] = run.results.get("teachers", {})
    worth: Mapping[str, Any] = run.results.get("worth", {})
    if not together and not worth:
        return None
    tables = []
    if together:
        splits = [split for split in reversed(SPLITS) if split in together]
        rows = [
            Row(label, [run.numbers.show(("teachers", split, key), form) for split in splits])
            for key, label, form in TOGETHER
        ]
        tables.append(Table("All teachers together", ["", *splits], rows))
    if worth:
        tables.insert(0, _worth_table(run.numbers, in_order(worth)))
    return Section(
        "teachers",
        "Teachers",
        lead=spared(worth),
        panels=_worth_panels(worth),
        tables=tables,
        note="Shapley value: what a teacher adds to the ensemble's accuracy, on average over all "
        "orders in which they may join it; all of them sum to what the ensemble has over naming "
        "the most frequent class. Lost without it: the ensemble's accuracy minus that of "
        "the others. Bars are one standard error on each side."
        if worth
        else "",
    )


def _of(numbers: Numbers, name: str, what: str) -> Cell:
    """A share and of how many samples it is one."""
    key = ("transfer", name, "test")
    if numbers.at(*key, what) is None:
        return numbers.show((*key, what), percent)
    share = numbers.show((*key, what), percent)
    return sentence(
        share, Markup(" <small>of "), numbers.show((*key, f"{what}_n"), count), Markup("</small>")
    )


def _worth_panels(worth: Mapping[str, Mapping[str, float | None]]) -> list[Figure]:
    """Shapley values and leave-one-out differences, each on an axis of its own."""
    panels = []
    for key, title in (("shapley", "Shapley value"), ("leave_one_out", "Lost without it")):
        bars = []
        for name in in_order(worth):
            value, error = worth[name][key], worth[name][f"{key}_error"]
            if value is not None:
                spread = None if error is None else (value - error, value + error)
                bars.append(Bar(name, [Mark(value, "teacher")], spread, "", "teacher"))
        if bars:
            drawing = Drawing(
                f"worth-{key.replace('_', '-')}",
                f"{title} of each teacher",
                f"{len(bars)} teachers, in points of the ensemble's validation accuracy.",
            )
            drawn = row_chart(drawing, bars, points_tick, "points", zero=0.0, width=340)
            panels.append(Figure(drawn, title=title))
    return panels


def _worth_table(numbers: Numbers, names: list[str]) -> Table:
    rows = [
        Row(
            name,
            [
                numbers.show(("predictors", name, "val", "accuracy"), percent),
                _with_error(numbers, ("worth", name, "shapley")),
                _with_error(numbers, ("worth", name, "leave_one_out")),
            ],
            "teacher",
        )
        for name in names
    ]
    columns = ["teacher", "accuracy alone", "Shapley value, points", "leave-one-out, points"]
    return Table(
        "Worth of each teacher on the validation split, ± one standard error", columns, rows
    )


def _with_error(numbers: Numbers, key: tuple[str, ...]) -> Cell:
    value = numbers.show(key, points)
    error = (*key[:-1], f"{key[-1]}_error")
    if numbers.at(*error) is None:
        return value
    return sentence(value, " ± ", numbers.show(error, lambda share: f"{100 * share:.1f}"))
