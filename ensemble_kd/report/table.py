"""The table at the end of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from ensemble_kd.report.console import number, open_console, show_table, start_table
from ensemble_kd.report.contract import PredictorEntry, Results
from ensemble_kd.report.roles import Role, in_order, role

if TYPE_CHECKING:
    from rich.table import Table

SPANS = "span F1"
COLUMNS = ("accuracy", SPANS, "NLL", "ECE", "parameters", "ms/1,000", "agreement")
SPARED = ("ECE", "ms/1,000", "NLL")
"""What is left out, in this order, where a terminal is too narrow for all: the page has it."""
STYLES: dict[Role, str] = {"student": "bold", "control": "dim"}


def print_results(results: Results, file: TextIO | None = None) -> None:
    """Print how every predictor does on the test split, and the verdict.

    On a terminal with colours and lines; elsewhere as plain text of the same shape.

    Args:
        results: the content of ``results.json``.
        file: where to; standard output unless given.
    """
    console = open_console(file)
    plain = not console.is_terminal
    counted = max((entry["test"]["n"] for entry in results["predictors"].values()), default=0)
    title = f"{counted:,} test samples; agreement is with the ensemble"
    tables = (_table(results, plain, SPARED[:number]) for number in range(len(SPARED) + 1))
    endless = console.options.update(max_width=10**4)
    fitting = (
        table
        for table in tables
        if console.measure(table, options=endless).maximum <= console.width
    )
    show_table(console, title, next(fitting, _table(results, plain, SPARED)))
    console.print(results["verdict"], highlight=False, markup=False, soft_wrap=True)


def _table(results: Results, plain: bool, spared: Sequence[str]) -> Table:
    predictors = results["predictors"]
    spans = any("span_f1" in entry["test"] for entry in predictors.values())
    columns = [name for name in COLUMNS if name not in spared and (name != SPANS or spans)]
    table = start_table(("predictor", *columns), plain)
    names = in_order(predictors)
    for name, following in zip(names, [*names[1:], None], strict=True):
        cells = _cells(predictors[name], _agreement(results, name))
        table.add_row(
            name,
            *(cells[column] for column in columns),
            style=None if plain else STYLES.get(role(name)),
            end_section=following is not None and _section(following) != _section(name),
        )
    return table


def _section(name: str) -> int:
    """Those who are there first, those who come on the way, and the two to compare."""
    return {"teacher": 0, "ensemble": 0, "control": 2, "student": 2}.get(role(name), 1)


def _agreement(results: Results, name: str) -> float | None:
    pair = results["pairs"].get(f"{name}|ensemble")
    return pair["test"]["agreement"] if pair else None


def _size(parameters: int | None) -> str:
    if parameters is None:
        return "-"
    return f"{parameters:,}" if parameters < 10**7 else f"{parameters / 1e6:,.1f} M"


def _cells(entry: PredictorEntry, agreement: float | None) -> dict[str, str]:
    test, size, time = entry["test"], entry["parameters"], entry["milliseconds_per_1000"]
    return {
        "accuracy": number(test["accuracy"], "{:.1%}"),
        SPANS: number(test.get("span_f1"), "{:.1%}"),
        "NLL": number(test["nll"], "{:.3f}"),
        "ECE": number(test["ece"], "{:.3f}"),
        "parameters": _size(size),
        "ms/1,000": number(time, "{:.2f}" if time is not None and time < 10 else "{:,.0f}"),
        "agreement": number(agreement, "{:.1%}"),
    }
