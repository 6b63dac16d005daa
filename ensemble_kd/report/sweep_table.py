"""What a sweep says on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from ensemble_kd.report.console import UNKNOWN, number, open_console, show_table, start_table
from ensemble_kd.report.sweep_against import STUDENT
from ensemble_kd.report.sweep_contract import AgainstEntry, GroupEntry, Spread, Sweep
from ensemble_kd.report.sweep_metrics import METRICS, Metric

if TYPE_CHECKING:
    from rich.console import Console

MOST_SENTENCES = 20
ENSEMBLE = "ensemble"


def print_sweep(sweep: Sweep, folder: Path, file: TextIO | None = None) -> None:
    """Print the tables of a sweep, a sentence on each setting, and what was left out.

    Args:
        sweep: the content of ``sweep.json``.
        folder: where it lies.
        file: where to print; standard output unless given.
    """
    console = open_console(file)
    _print_means(console, sweep)
    if any(group["against"] for group in sweep["groups"]):
        _print_verdicts(console, sweep)
    _print_metrics(console, sweep)
    for job in sweep["missing"]:
        _line(console, f"left out: job {job['folder']}: {job['reason']}")
    _line(console, f"sweep: {folder}")


def _print_means(console: Console, sweep: Sweep) -> None:
    metric, reference = METRICS[sweep["metric"]["name"]], sweep["reference"]
    others = [name for name in (reference, ENSEMBLE) if name is not None]
    names = list(dict.fromkeys([STUDENT, *others]))
    singles = any(group["singles"] for group in sweep["groups"])
    columns = ["setting", "n", *names, *(["one teacher: mean", "best"] if singles else []), "gain"]
    rows = []
    for group in sweep["groups"]:
        cells = [_spread(_test(group, name, metric), metric) for name in names]
        if singles:
            one = group["singles"]
            both = [one["test"]["mean"], one["test"]["best"]] if one else [None, None]
            cells += [_spread(each, metric) for each in both]
        cells.append(_spread(group["gain"]["test"], metric, signed=True))
        rows.append([group["label"], str(group["n"]), *cells])
    percent = " in %" if metric.factor == 100 else ""
    gain = f"; gain = {metric.formula(STUDENT, reference)}" if reference else ""
    title = f"test {metric.title}{percent}, mean ± standard deviation over seeds{gain}"
    _table(console, title, columns, rows)


def _print_verdicts(console: Console, sweep: Sweep) -> None:
    metric, reference = METRICS[sweep["metric"]["name"]], sweep["reference"]
    found = {g["label"]: g["against"].get(reference or "") for g in sweep["groups"]}
    known = {label: entry for label, entry in found.items() if entry is not None}
    columns = ["setting", "gain, 95% interval", "p", "Holm", "effect", "verdict"]
    rows = [[label, *_judged(entry, metric)] for label, entry in found.items()]
    family = max((entry["family"] for entry in known.values()), default=1)
    title = (
        f"against {reference}, paired by seed; p: sign-flip test; Holm: the same, corrected for "
        f"{family} setting{'s' if family > 1 else ''}; effect: d_z with Hedges' correction"
    )
    _table(console, title, columns, rows)
    said: dict[str, list[str]] = {}
    for label, entry in known.items():
        said.setdefault(f"{entry['verdict']}: {entry['sentence']}", []).append(label)
    for sentence, labels in list(said.items())[:MOST_SENTENCES]:
        _line(console, f"{'; '.join(labels)}: {sentence}")
    if len(said) > MOST_SENTENCES:
        _line(console, f"{len(said) - MOST_SENTENCES} more sentences are in sweep.json")
    console.print()


def _judged(entry: AgainstEntry | None, metric: Metric) -> list[str]:
    if entry is None:
        return [UNKNOWN] * 5
    low, high = (_number(entry["low"], metric, True), _number(entry["high"], metric, True))
    interval = "" if entry["low"] is None else f" [{low}, {high}]"
    return [
        _number(entry["mean"], metric, True) + interval,
        f"{entry['p']:.3f}",
        f"{entry['p_holm']:.3f}",
        number(entry["effect_size"], "{:+.2f}"),
        entry["verdict"],
    ]


def _print_metrics(console: Console, sweep: Sweep) -> None:
    """The student by every metric, and its churn; nothing where neither is known."""
    groups = sweep["groups"]
    known = [m for m in METRICS.values() if any(_test(g, STUDENT, m) for g in groups)]
    churned = any(group["churn"].get(STUDENT) for group in groups)
    if not known and not churned:
        return
    columns = ["setting", *(metric.title for metric in known), *(["churn"] if churned else [])]
    rows = []
    for group in groups:
        row = [group["label"], *(_spread(_test(group, STUDENT, m), m) for m in known)]
        entry = group["churn"].get(STUDENT)
        churn = f"{100 * entry['mean']:.1f} on {entry['samples']:.0f}" if entry else UNKNOWN
        rows.append([*row, churn] if churned else row)
    note = "; churn: % of the test samples two seeds share on which they differ" if churned else ""
    _table(console, f"students on the test split; accuracy, F1 and ECE in %{note}", columns, rows)


def _test(group: GroupEntry, predictor: str, metric: Metric) -> Spread | None:
    found = group["predictors"].get(predictor, {}).get("test", {}).get(metric.name)
    return found if found is not None and found["n"] else None


def _spread(found: Spread | None, metric: Metric, signed: bool = False) -> str:
    if found is None:
        return UNKNOWN
    middle = _number(found["mean"], metric, signed)
    return middle if found["std"] is None else f"{middle} ± {_number(found['std'], metric)}"


def _number(value: float | None, metric: Metric, signed: bool = False) -> str:
    form = f"{{:{'+' if signed else ''}.{metric.digits}f}}"
    return number(None if value is None else metric.factor * value, form)


def _table(
    console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    table = start_table(tuple(columns), plain=not console.is_terminal)
    for row in rows:
        table.add_row(*row)
    show_table(console, title, table)


def _line(console: Console, text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)
