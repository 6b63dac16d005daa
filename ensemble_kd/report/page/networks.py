"""Sections of a run's page that lay all its networks side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from markupsafe import Markup

from ensemble_kd.report.page.content import Run
from ensemble_kd.report.page.parts import (
    Cell,
    Figure,
    Numbers,
    Row,
    Section,
    Table,
    count,
    decimals,
    duration,
    octets,
    percent,
    size,
)
from ensemble_kd.report.roles import ALONE, in_order, role
from ensemble_kd.report.svg import (
    Cell as Square,
)
from ensemble_kd.report.svg import (
    Drawing,
    Node,
    Spot,
    heat_map,
    lineage_graph,
    scatter_chart,
)
from ensemble_kd.report.svg.frame import compact

Form = Callable[[float], str]

SCORES: Sequence[tuple[str, str, Form]] = (
    ("accuracy", "accuracy", percent),
    ("macro_f1", "macro-F1", percent),
    ("span_f1", "span F1", percent),
    ("nll", "NLL", decimals),
    ("brier", "Brier", decimals),
    ("ece", "ECE", decimals),
)
COSTS: Sequence[tuple[tuple[str, ...], str, Form]] = (
    (("parameters",), "parameters", size),
    (("bytes",), "size", octets),
    (("multiply_adds",), "mult-adds", compact),
    (("latency", "p50"), "p50", duration),
    (("latency", "p95"), "p95", duration),
    (("milliseconds_per_1000",), "ms/1,000", duration),
)
NEARNESS: Sequence[tuple[str, str, Form]] = (
    ("agreement", "agreement", percent),
    ("probability_loyalty", "loyalty", percent),
)
PRICES: Sequence[tuple[tuple[str, ...], str]] = (
    (("latency", "p50"), "median time for one sample, ms"),
    (("milliseconds_per_1000",), "ms for 1,000 samples"),
    (("parameters",), "parameters"),
)
"""What accuracy is held against: the first of which it is known of several networks."""
MOST_SAID = 14
"""Networks up to which each square of the agreement is large enough for a decimal."""


def lineage(run: Run) -> Section | None:
    """Who taught whom."""
    stages = run.results["stages"]
    if not stages:
        return None
    names = in_order(stage["name"] for stage in stages)
    by_name = {stage["name"]: stage for stage in stages}
    taught = {parent for stage in stages for parent in stage["teachers"]}
    # The student first: it is what the picture is about.
    nodes = [
        Node(
            name,
            _stage_note(name, by_name[name]["parameters"], by_name[name]["epochs"]),
            role(name),
            by_name[name]["teachers"],
            last=role(name) in ("student", "control") and name not in taught,
        )
        for name in sorted(names, key=lambda name: role(name) != "student")
    ]
    trained = [stage for stage in stages if not stage["reused"]]
    reused = len(stages) - len(trained)
    seconds = sum(stage["seconds"] for stage in trained)
    said = f"{len(trained)} of {len(stages)} stages were trained in this run, in {seconds:,.0f} s"
    said += f"; {reused} came from the store or were given" if reused else ""
    return Section(
        "lineage",
        "Lineage",
        figures=[
            Figure(
                lineage_graph(
                    Drawing(
                        "lineage-graph",
                        "Lineage of the stages",
                        f"{len(stages)} networks from left to right, each behind those that taught "
                        "it; the student is emphasised.",
                    ),
                    nodes,
                ),
                f"Each line leads from a teacher to its pupil. {said}.",
            )
        ],
    )


def predictors(run: Run) -> Section:
    """Every predictor on the test split."""
    entries = run.results["predictors"]
    scores = [
        each for each in SCORES if any(each[0] in entry["test"] for entry in entries.values())
    ]
    with_ensemble = "ensemble" in entries
    columns = ["predictor", *(title for _, title, _ in scores), *(title for _, title, _ in COSTS)]
    columns += [title for _, title, _ in NEARNESS] if with_ensemble else []
    rows = []
    for name in in_order(entries):
        own: list[Cell] = []
        for key, _, form in scores:
            own.append(run.numbers.show(("predictors", name, "test", key), form))
        for cost, _, form in COSTS:
            own.append(run.numbers.show(("predictors", name, *cost), form))
        if with_ensemble:
            own += [_near(run.numbers, name, key, form) for key, _, form in NEARNESS]
        rows.append(Row(name, own, role(name)))
    counted = max((entry["test"]["n"] for entry in entries.values()), default=0)
    with_whom = "; agreement and loyalty are with the ensemble" if with_ensemble else ""
    return Section(
        "predictors",
        "All networks",
        tables=[Table(f"{count(counted)} labelled test samples{with_whom}", columns, rows)],
        note="NLL in nats, ECE on 15 bins; multiply-adds of one sample; median (p50) and 95th "
        "percentile of milliseconds for a single sample, and milliseconds for 1,000 in batches, on "
        "the processor of this run. Loyalty is that of probabilities: 1 minus the root of the "
        "Jensen-Shannon divergence, base 2.",
    )


def pareto(run: Run) -> Section | None:
    """Accuracy, size and latency."""
    for key, label in PRICES:
        spots = _spots(run, key)
        if len(spots) > 1 and any(spot.name == "student" for spot in spots):
            return _pareto(run, spots, f"{label} (log scale)")
    return None


def _pareto(run: Run, spots: Sequence[Spot], label: str) -> Section:
    left_out = [name for name in run.results["predictors"] if role(name) == "control"]
    others = " Other controls cost what the student costs." if len(left_out) > 1 else ""
    return Section(
        "pareto",
        "Accuracy, size, latency",
        figures=[
            Figure(
                scatter_chart(
                    Drawing(
                        "pareto-chart",
                        "Accuracy against cost",
                        f"{len(spots)} networks by {label} and test accuracy; areas are sizes.",
                    ),
                    spots,
                    label,
                    compact,
                ),
                "Test accuracy against cost. Areas are numbers of parameters, though no spot is "
                "smaller than can be seen. The stepped line is the Pareto front: the best "
                f"accuracy to be had at each cost.{others}",
            )
        ],
    )


def agreement(run: Run) -> Section | None:
    """How often each two networks name the same class."""
    names = in_order(run.results["predictors"])
    found: dict[tuple[int, int], tuple[str, float]] = {}
    for i, one in enumerate(names):
        for j, other in enumerate(names):
            key = f"{one}|{other}"
            value = run.numbers.at("pairs", key, "test", "agreement")
            if value is not None:
                found[i, j] = found[j, i] = (key, value)
    if not found:
        return None
    lowest = min(value for _, value in found.values())
    exact = len(names) <= MOST_SAID

    def square(i: int, j: int) -> Square | None:
        if (i, j) not in found:
            return None
        key, value = found[i, j]
        strength = (value - lowest) / (1 - lowest) if lowest < 1 else 1.0
        said = run.numbers.show(
            ("pairs", key, "test", "agreement"),
            (lambda share: f"{100 * share:.1f}") if exact else (lambda share: f"{100 * share:.0f}"),
            "tspan",
        )
        return Square(strength, said, "sequential", f"{names[i]} and {names[j]}: {value:.2%}")

    return Section(
        "agreement",
        "Agreement",
        figures=[
            Figure(
                heat_map(
                    Drawing(
                        "agreement-map",
                        "Agreement between all networks",
                        f"Share of the test samples on which two of {len(names)} networks name "
                        f"the same class; the lowest is {lowest:.1%}.",
                    ),
                    names,
                    names,
                    square,
                    42 if exact else 28,
                ),
                "Share of the test samples, in percent, on which two networks name the same "
                "class, right or wrong.",
            )
        ],
    )


def _stage_note(name: str, parameters: int | None, epochs: int) -> str:
    known = "size unknown" if parameters is None else f"{compact(parameters)} parameters"
    if epochs:
        return f"{known}, {epochs} epoch{'s' if epochs > 1 else ''}"
    return f"{known}, {'given' if role(name) == 'teacher' else 'untrained'}"


def _near(numbers: Numbers, name: str, what: str, form: Form) -> Cell:
    if name == "ensemble":
        return Markup("")
    return numbers.show(("pairs", f"{name}|ensemble", "test", what), form)


def _spots(run: Run, key: tuple[str, ...]) -> list[Spot]:
    """All networks whose cost is known; of the controls only the one that the verdict is about."""
    spots = []
    for name in in_order(run.results["predictors"]):
        if role(name) == "control" and name != ALONE:
            continue
        cost = run.numbers.at("predictors", name, *key)
        accuracy = run.numbers.at("predictors", name, "test", "accuracy")
        if cost and accuracy is not None:
            parameters = run.numbers.at("predictors", name, "parameters")
            style = role(name)
            spots.append(Spot(name, style, cost, accuracy, parameters, style == "control"))
    return spots
