"""Sections of a sweep's page: settings by cost, from seed to seed, and against each other."""

from __future__ import annotations

import statistics

from markupsafe import Markup

from ensemble_kd.report.page.parts import (
    MINUS,
    Figure,
    Row,
    Section,
    Table,
    count,
    percent,
    sentence,
)
from ensemble_kd.report.page.settings import p_value
from ensemble_kd.report.page.sweep_content import Swept
from ensemble_kd.report.roles import role
from ensemble_kd.report.svg import Cell as Square
from ensemble_kd.report.svg import Drawing, Mark, Spot, heat_map, row_chart, scatter_chart
from ensemble_kd.report.svg import Row as Bar
from ensemble_kd.report.svg.frame import compact
from ensemble_kd.report.svg.frame import percent as percent_tick


def pareto(sweep: Swept) -> Section | None:
    """Accuracy of the students by what they cost."""
    spots, label = _spots(sweep, timed=True), "median time for one sample, ms (log scale)"
    if len(spots) < 2:
        spots, label = _spots(sweep, timed=False), "parameters (log scale)"
    if len(spots) < 2:
        return None
    drawing = Drawing(
        "pareto-chart",
        "Accuracy of the students against cost",
        f"{len(spots)} settings by {label} and test accuracy; areas are sizes.",
    )
    caption = (
        "Each spot is the student of a setting: means over seeds, areas are numbers of "
        "parameters. The stepped line is the Pareto front."
    )
    return Section(
        "pareto",
        "Accuracy, size, latency",
        figures=[Figure(scatter_chart(drawing, spots, label, compact), caption)],
    )


def churn(sweep: Swept) -> Section | None:
    """How many samples change their class from seed to seed."""
    bars, rows = [], []
    names = list(dict.fromkeys(name for _, group in sweep.shown for name in group["churn"]))
    for place, group in sweep.shown:
        found = {name: own for name, own in group["churn"].items() if own is not None}
        if found:
            marks = [
                Mark(own["mean"], role(name), name != "student") for name, own in found.items()
            ]
            bars.append(Bar(group["label"], marks))
            cells = [
                sweep.numbers.show(("groups", place, "churn", name, "mean"), percent)
                for name in names
            ]
            pairs = max(own["pairs"] for own in found.values())
            rows.append(Row(group["label"], [*cells, count(pairs)]))
    if not rows:
        return None
    drawing = Drawing(
        "churn-chart", "Churn between seeds", f"{len(bars)} settings; {', '.join(names)}."
    )
    chart = row_chart(drawing, bars, percent_tick, "churn", bounds=(0.0, 1.0))
    caption = (
        "Share of the test samples that two seeds of a setting give different classes, mean over "
        "pairs of seeds. Less is steadier."
    )
    return Section(
        "churn",
        "Churn",
        figures=[Figure(chart, caption)],
        keys={name: role(name) for name in names},
        tables=[Table("Churn by setting", ["setting", *names, "pairs"], rows, folded=True)],
    )


def between(sweep: Swept) -> Section | None:
    """Every two settings by their common seeds."""
    found = sweep.content["between"]
    labels = [group["label"] for group in sweep.content["groups"]]
    if not found or len(labels) < 3:
        return None
    entries = {(entry["one"], entry["other"]): (k, entry) for k, entry in enumerate(found)}
    largest = max(abs(entry["mean"]) for entry in found) or 1.0

    def square(i: int, j: int) -> Square | None:
        turned = (labels[i], labels[j]) not in entries
        pair = (labels[j], labels[i]) if turned else (labels[i], labels[j])
        if i == j or pair not in entries:
            return None
        place, entry = entries[pair]
        mean = -entry["mean"] if turned else entry["mean"]
        star = "*" if entry["better"] else ""
        said: Markup | str = sweep.difference(mean) + star
        if not turned:
            key = ("between", place, "mean")
            said = sentence(sweep.numbers.show(key, sweep.difference, "tspan"), star)
        style = "more" if mean > 0 else "fewer"
        gain, p = sweep.difference(mean), p_value(entry["p_holm"])
        about = f"{labels[i]} {MINUS} {labels[j]}: {gain}, p {p}"
        return Square(abs(mean) / largest, said, style, about)

    drawing = Drawing(
        "between-map", "Differences between settings", f"Every two of {len(labels)} settings."
    )
    chart = heat_map(drawing, labels, labels, square, 46, ("setting", "against"))
    unit = sweep.content["metric"]["unit"]
    caption = (
        f"Gain of the setting in a row over that in a column, in {unit}, by the seeds that both "
        "have. A star: called, after correction for all pairs (Holm)."
    )
    return Section("between", "Setting against setting", figures=[Figure(chart, caption)])


def _spots(sweep: Swept, timed: bool) -> list[Spot]:
    """The student of each setting whose accuracy and cost are known: means over its runs."""
    spots = []
    for place, group in sweep.shown:
        jobs = [job["folder"] for job in sweep.content["jobs"] if job["group"] == group["label"]]
        entries = [sweep.runs[job]["predictors"]["student"] for job in jobs if job in sweep.runs]
        sizes = [entry["parameters"] for entry in entries if entry["parameters"] is not None]
        times = [entry["latency"]["p50"] for entry in entries if entry["latency"] is not None]
        costs = times if timed else sizes
        student = ("groups", place, "predictors", "student", "test")
        accuracy = sweep.numbers.at(*student, "accuracy", "mean")
        if accuracy is not None and costs and min(costs) > 0:
            size = statistics.fmean(sizes) if sizes else None
            spots.append(Spot(group["label"], "student", statistics.fmean(costs), accuracy, size))
    return spots
