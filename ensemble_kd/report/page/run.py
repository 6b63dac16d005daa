"""The page of a run: its sections in order, and what it was run with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ensemble_kd.report.page.content import Run
from ensemble_kd.report.page.controls import controls
from ensemble_kd.report.page.lines import curves, robustness
from ensemble_kd.report.page.mistakes import confusion, recall, reliability
from ensemble_kd.report.page.networks import agreement, lineage, pareto, predictors
from ensemble_kd.report.page.parts import Row, Section, Table, count
from ensemble_kd.report.page.teachers import teachers, transfer
from ensemble_kd.report.page.verdict import verdict

SECTIONS: Sequence[Callable[[Run], Section | None]] = (
    lineage,
    predictors,
    controls,
    curves,
    pareto,
    reliability,
    confusion,
    agreement,
    transfer,
    teachers,
    robustness,
    recall,
)
LONGEST_CONFIG = 200_000
MOST_VALUES = 24


class Shown(NamedTuple):
    """A value of a table's row, in the unit of its file where that is known."""

    name: str
    value: str


def run_page(run: Run, most: int) -> dict[str, Any]:
    """What the template ``page.html.jinja`` shows.

    Args:
        run: what the run left.
        most: how many samples at most.
    """
    results = run.results
    data = results["data"]
    found = [make(run) for make in SECTIONS]
    found += [_samples(run, most), _details(run)]
    return {
        "title": f"{data.get('name', 'run')} · {results['strategy']} · seed {results['seed']}",
        "verdict": verdict(run),
        "sections": [section for section in found if section is not None],
    }


def _samples(run: Run, most: int) -> Section | None:
    if not run.samples or most < 1:
        return None
    against = run.samples[0]["against"]
    return Section(
        "samples",
        "Where student and teachers differ most",
        lead=f"The test samples with the largest KL({against} || student), in nats.",
        template="samples.html.jinja",
        content=[
            {**sample, "values": _values(sample["input"], run.columns)}
            for sample in run.samples[:most]
        ],
    )


def _values(given: Mapping[str, Any], columns: Sequence[Mapping[str, Any]]) -> list[Shown]:
    """The values of a table's row; those that were standardised, in their own unit again."""
    shown = []
    for place, value in enumerate(given.get("values", [])[:MOST_VALUES]):
        column = columns[place] if place < len(columns) else {}
        name = str(column.get("column", f"input {place}"))
        if "is" in column:
            name += f" is {column['is']}"
        if value is None:  # JSON knows no number that is not finite
            shown.append(Shown(name, "\N{EN DASH}"))
            continue
        own = value * column.get("std", 1.0) + column.get("mean", 0.0)
        shown.append(Shown(name, f"{own:.4g}"))
    left = given.get("count", len(shown)) - len(shown)
    return [*shown, Shown("…", f"{count(left)} more")] if left > 0 else shown


def _details(run: Run) -> Section:
    """Configuration, versions and hashes."""
    results = run.results
    data = {name: value for name, value in results["data"].items() if name != "digest"}
    described = [Row(name, [_words(value)]) for name, value in data.items()]
    digests = [Row("data", [str(results["data"].get("digest", ""))])]
    digests += [Row(stage["name"], [stage["digest"]]) for stage in results["stages"]]
    versions = [Row(name, [version]) for name, version in results["versions"].items()]
    text = frozenset({1})
    tables = [
        Table("Data", ["", "value"], described, text, folded=True),
        Table("Versions", ["package", "version"], versions, text, folded=True),
        Table(
            "Hashes of data and networks (SHA-256)", ["of", "digest"], digests, text, folded=True
        ),
    ]
    for name, value in results.get("export", {}).items():
        described.append(Row(name.replace("_", " "), [_words(value)]))
    cut = len(run.config) > LONGEST_CONFIG
    config = run.config[:LONGEST_CONFIG] + ("\n…" if cut else "")
    return Section(
        "details",
        "Configuration, versions, hashes",
        template="details.html.jinja",
        content={"config": config, "tables": [table for table in tables if table.rows]},
    )


def _words(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " \N{MULTIPLICATION SIGN} ".join(map(_words, value))
    if isinstance(value, int) and not isinstance(value, bool):
        return count(value)
    return f"{value:.3g}" if isinstance(value, float) else str(value)
