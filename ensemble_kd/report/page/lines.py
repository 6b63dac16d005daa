"""Sections of a run's page that show curves: learning, and accuracy on spoilt samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ensemble_kd.report.curves import by_learner
from ensemble_kd.report.page.content import Run
from ensemble_kd.report.page.parts import Figure, Row, Section, Table, count, percent
from ensemble_kd.report.roles import ALONE, in_order, role
from ensemble_kd.report.svg import Drawing, Line, line_chart
from ensemble_kd.report.svg.frame import percent as percent_tick
from ensemble_kd.report.svg.frame import plain
from ensemble_kd.report.svg.lines import Axes, epochs
from ensemble_kd.report.svg.scale import window

ACCURACY = "val_accuracy"
WIDE, SMALL = (680.0, 320.0), (300.0, 190.0)
AT_FIRST, MOST_PANELS = 6, 30
"""Networks whose loss terms are shown, and of which they are there for those who ask."""
KINDS = 7
"""Colours of loss terms; more terms than that share them."""
Series = Sequence[tuple[int, float]]


def curves(run: Run) -> Section | None:
    """Validation accuracy and loss terms by epoch."""
    # A training that diverged logs what is no number.
    learners = by_learner(point for point in run.points if math.isfinite(point.value))
    names = in_order(learners)
    accuracies = {name: learners[name][ACCURACY] for name in names if ACCURACY in learners[name]}
    terms = {
        name: {what: own for what, own in learners[name].items() if not what.startswith("val_")}
        for name in names
    }
    terms = {name: own for name, own in terms.items() if own}
    if not accuracies and not terms:
        return None
    kinds = list(dict.fromkeys(kind for own in terms.values() for kind in own))
    styles = _styles(kinds)
    # The student's are read first, then those of the control that the verdict is about.
    shown = sorted(terms, key=lambda name: (name != "student", name != ALONE))
    panels = [
        _terms(f"terms-{number}", name, terms[name], styles)
        for number, name in enumerate(shown[:MOST_PANELS])
    ]
    left_out = len(shown) - len(panels)
    note = "Each term of the loss, mean over an epoch, as it is weighted in the loss."
    return Section(
        "curves",
        "Learning curves",
        figures=[_accuracies(accuracies)] if accuracies else [],
        panels=panels[:AT_FIRST],
        more=panels[AT_FIRST:],
        keys={kind: styles[kind] for kind in kinds},
        note=(f"{note} {left_out} networks are not shown." if left_out else note) if terms else "",
    )


def robustness(run: Run) -> Section | None:
    """Accuracy by severity of each corruption."""
    spoilt = run.results["robustness"]
    shown = [name for name in ("ensemble", ALONE, "student") if name in run.results["predictors"]]
    panels, rows = [], []
    for number, corruption in enumerate(dict.fromkeys(entry["corruption"] for entry in spoilt)):
        own = [(k, entry) for k, entry in enumerate(spoilt) if entry["corruption"] == corruption]
        lines = []
        for name in shown:
            points = [
                (float(entry["severity"]), entry["accuracy"][name])
                for _, entry in own
                if name in entry["accuracy"]
            ]
            clean = run.numbers.at("predictors", name, "test", "accuracy")
            if points and clean is not None:
                lines.append(Line(name, role(name), [(0.0, clean), *sorted(points)]))
        if lines:
            panels.append(_robust(f"robustness-{number}", corruption, lines))
        rows += [
            Row(
                f"{corruption} {entry['severity']}",
                [run.numbers.show(("robustness", k, "accuracy", name), percent) for name in shown],
            )
            for k, entry in own
        ]
    if not panels:
        return None
    n = max(entry["n"] for entry in spoilt)
    return Section(
        "robustness",
        "Robustness",
        lead=f"Accuracy on {count(n)} spoilt test samples, by how badly they are spoilt; at 0, "
        "accuracy on the test split as it is.",
        panels=panels,
        keys={name: role(name) for name in shown},
        tables=[
            Table("Accuracy by corruption and severity", ["corruption", *shown], rows, folded=True),
        ],
    )


def _accuracies(accuracies: Mapping[str, Series]) -> Figure:
    last = max(epoch for series in accuracies.values() for epoch, _ in series) + 1
    late = [value for series in accuracies.values() for _, value in series[len(series) // 3 :]]
    best = max(value for series in accuracies.values() for _, value in series)
    limits = window([*late, best], 0.06, 0.04, (-0.01, 1.01))
    numbers: dict[str, int] = {}
    lines = []
    for name, series in accuracies.items():
        place = numbers[role(name)] = numbers.get(role(name), -1) + 1
        points = [(epoch + 1.0, value) for epoch, value in series]
        strength = 1.0 if role(name) == "student" else max(0.9 - 0.2 * place, 0.3)
        lines.append(Line(name, role(name), points, f"{100 * series[-1][1]:.1f}", strength))
    drawing = Drawing(
        "accuracy-curves",
        "Validation accuracy by epoch",
        "; ".join(f"{line.name} ends at {line.last}%" for line in lines),
    )
    axes = Axes((0.0 if last > 1 else 0.5, last + 0.0), limits, "epoch", epochs, percent_tick)
    height = max(WIDE[1], 15.0 * len(lines) + 50)
    caption = "Validation accuracy after each epoch. Of steep beginnings a part may be cut off."
    return Figure(line_chart(drawing, lines, axes, (WIDE[0], height), named=True), caption)


def _terms(ident: str, name: str, own: Mapping[str, Series], styles: Mapping[str, str]) -> Figure:
    lines = [
        Line(kind, styles[kind], [(epoch + 1.0, value) for epoch, value in series])
        for kind, series in own.items()
    ]
    last = max(x for line in lines for x, _ in line.points)
    values = [y for line in lines for _, y in line.points]
    limits = window([*values, *([0.0] if min(values) >= 0 else [])], 0.04)
    if min(values) >= 0:
        limits = (0.0, limits[1])
    axes = Axes((0.0 if last > 1 else 0.5, last), limits, "", epochs, plain)
    drawing = Drawing(ident, f"Loss terms of {name}", ", ".join(own) + " by epoch")
    return Figure(line_chart(drawing, lines, axes, SMALL, named=False), title=name)


def _robust(ident: str, corruption: str, lines: Sequence[Line]) -> Figure:
    values = [y for line in lines for _, y in line.points]
    last = max(x for line in lines for x, _ in line.points)
    limits = window(values, 0.08, 0.05, (-0.01, 1.01))
    axes = Axes((0.0, last), limits, "severity", epochs, percent_tick)
    said = "; ".join(
        f"{line.name} from {line.points[0][1]:.1%} to {line.points[-1][1]:.1%}" for line in lines
    )
    drawing = Drawing(ident, f"Accuracy under {corruption}", said)
    return Figure(line_chart(drawing, lines, axes, (300.0, 210.0), named=False), title=corruption)


def _styles(kinds: Sequence[str]) -> dict[str, str]:
    """The label term is ink in every picture; the others take colours in the order of logging."""
    others = [kind for kind in kinds if kind != "label"]
    coloured = {kind: f"term-{number % KINDS}" for number, kind in enumerate(others)}
    return {kind: coloured.get(kind, "term-label") for kind in kinds}
