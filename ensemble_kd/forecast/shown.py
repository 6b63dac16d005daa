"""A forecast, as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from ensemble_kd.forecast.described import Cluster, Forecast, Job, Row
from ensemble_kd.report.console import UNKNOWN, open_console, show_table, start_table

COLUMNS = ("part", "steps", "time", "from", "to", "memory", "disk", "network/step", "network")
UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def show(found: Forecast, job: Job, cluster: Cluster, notes: Sequence[str]) -> None:
    """Print a forecast, and what it leaves out.

    Args:
        found: the forecast.
        job: of what.
        cluster: where.
        notes: sentences.
    """
    console = open_console()
    table = start_table(COLUMNS, plain=not console.is_terminal)
    for row in (*found.rows, found.total):
        table.add_row(*_cells(row))
    samples, size = f"{job.data.train:,} training samples", job.data.batch_size
    ranks = f"{cluster.ranks} processes, each" if cluster.ranks > 1 else "1 process"
    title = f"An estimate from this machine: {samples}, {ranks} with batches of {size}"
    show_table(console, title, table)
    for note in notes:
        console.print(f"- {note}.", markup=False, soft_wrap=True)


def as_json(found: Forecast, job: Job, cluster: Cluster, notes: Sequence[str]) -> str:
    """All figures, with what was measured for them; seconds and bytes."""
    said = {
        "parts": [_row(row) for row in found.rows],
        "total": _row(found.total),
        "cluster": asdict(cluster),
        "measured": _plain(asdict(job)),
        "notes": list(notes),
    }
    return json.dumps(said, indent=2)


def duration(seconds: float) -> str:
    """Seconds in the unit in which they are best read."""
    for unit, size, below in (("ms", 1e-3, 1), ("s", 1, 120), ("min", 60, 7200), ("h", 3600, 2e5)):
        if seconds < below:
            return f"{seconds / size:.3g} {unit}"
    days = seconds / 86400
    return f"{days:.3g} days" if days < 1000 else f"{days / 365.25:,.3g} years"


def amount(size: float) -> str:
    """Bytes in the unit in which they are best read, a thousand of the one before."""
    number = 0
    while size >= 1000 and number + 1 < len(UNITS):
        size, number = size / 1000, number + 1
    return f"{size:.3g} {UNITS[number]}"


def _cells(row: Row) -> tuple[str, ...]:
    low, middle, high = map(duration, row.seconds)
    sent = [amount(each) if each else UNKNOWN for each in (row.step_network, row.network)]
    steps = f"{row.steps:,}" if row.steps else UNKNOWN
    return (row.name, steps, middle, low, high, amount(row.memory), amount(row.disk), *sent)


def _row(row: Row) -> object:
    return _plain(asdict(row))


def _plain(value: object) -> object:
    """Named tuples as mappings, so that readers need not know their order."""
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {key: _plain(each) for key, each in value._asdict().items()}
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
