"""What a search has found so far: ``search.json``, and the words at its end."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensemble_kd.errors import UserError
from ensemble_kd.files import write_json
from ensemble_kd.report.console import number, open_console, show_table, start_table
from ensemble_kd.report.results import read_results
from ensemble_kd.search.space import Space
from ensemble_kd.version import __version__

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

SCHEMA = 1
FAILURE = "failure"
"""The attribute of a trial that says why it failed; a trial that was cut off has none."""

SHOWN = 10
SEEDS = 6
"""Fewer seeds than this allow no word of significance."""

WITHOUT_CONTROL = ("controls=[]",)


def ended(study: Study) -> int:
    """How many trials came to an end of their own, be it a failure that would come again."""
    trials = study.get_trials(deepcopy=False)
    return sum(trial.value is not None or FAILURE in trial.user_attrs for trial in trials)


def summarise(
    study: Study,
    space: Space,
    folder: Path,
    wanted: int,
    seed: int,
    extra_dirs: Sequence[Path] = (),
) -> dict[str, Any]:
    """The content of ``search.json``.

    The best trial is that of the highest validation accuracy, of equals the first. What it does on
    the test split is looked up when no trial is missing, and of no other trial.

    Args:
        study: its trials.
        space: what is searched.
        folder: of the search.
        wanted: number of trials that there shall be.
        seed: of every trial.
        extra_dirs: folders with the user's own groups.
    """
    trials = study.get_trials(deepcopy=False)
    complete = [trial for trial in trials if trial.value is not None]
    best = max(complete, key=lambda trial: (trial.value, -trial.number), default=None)
    summary: dict[str, Any] = {
        "schema": SCHEMA,
        "overrides": list(space.lines),
        "seed": seed,
        "versions": {"ensemble-kd": __version__, "optuna": version("optuna")},
        "wanted": wanted,
        "ended": ended(study),
        "trials": [_entry(trial, space) for trial in trials],
        "best": None,
    }
    if best is not None:
        entry = _entry(best, space)
        entry["confirm"] = confirming(space.overrides(best.params), seed, extra_dirs)
        entry["test_accuracy"] = None
        if summary["ended"] >= wanted:
            results = read_results(folder / "trials" / str(best.number) / "results.json")
            entry["test_accuracy"] = results["predictors"]["student"]["test"]["accuracy"]
        summary["best"] = entry
    return summary


def write_summary(summary: Mapping[str, Any], folder: Path) -> None:
    """Write ``search.json``, whole or not at all.

    Raises:
        UserError: the file system refuses.
    """
    write_json(folder / "search.json", summary)


def print_summary(summary: Mapping[str, Any], folder: Path) -> None:
    """The best trials, what the very best does on the test split, and how to confirm it.

    Raises:
        UserError: every trial failed.
    """
    failed = [trial for trial in summary["trials"] if trial["failure"] is not None]
    best = summary["best"]
    if best is None:
        raise UserError(f"every trial failed, the last one because: {failed[-1]['failure']}")
    known = [trial for trial in summary["trials"] if trial["val_accuracy"] is not None]
    known.sort(key=lambda trial: (-trial["val_accuracy"], trial["number"]))
    console = open_console()
    table = start_table(("trial", "val accuracy", *best["values"]), plain=not console.is_terminal)
    for trial in islice(known, SHOWN):
        accuracy = f"{100 * trial['val_accuracy']:.1f}%"
        table.add_row(str(trial["number"]), accuracy, *map(_short, trial["values"].values()))
    more = f", the best {SHOWN}" if len(known) > SHOWN else ""
    lost = f"; {len(failed)} failed" if failed else ""
    show_table(console, f"{len(known)} trials by validation accuracy{more}{lost}", table)
    tested = best["test_accuracy"]
    accuracy = number(None if tested is None else 100 * tested, "{:.1f}%")
    for line in (
        f"trial {best['number']} was chosen; its test accuracy, which chose nothing: {accuracy}",
        "the best of many looks better than it is; six other seeds tell how good:",
        "",
        f"  {best['confirm']}",
        "",
        f"search: {folder}",
    ):
        console.print(line, markup=False, soft_wrap=True)


def confirming(overrides: Sequence[str], seed: int, extra_dirs: Sequence[Path] = ()) -> str:
    """The command that runs a trial again with seeds by which it was not chosen.

    Args:
        overrides: of the trial.
        seed: of the trial.
        extra_dirs: folders with the user's own groups.
    """
    kept = [
        override
        for override in overrides
        if override.partition("=")[0] != "seed" and override not in WITHOUT_CONTROL
    ]
    others = islice((other for other in range(SEEDS + 1) if other != seed), SEEDS)
    flags = [word for folder in extra_dirs for word in ("--config-dir", str(folder))]
    seeds = ",".join(map(str, others))
    words = ("python", "-m", "ensemble_kd", *flags, "--multirun", *kept, f"seed={seeds}")
    return shlex.join(words)


def _entry(trial: FrozenTrial, space: Space) -> dict[str, Any]:
    """A trial as ``search.json`` lists it."""
    drawn = {axis.key: axis for axis in space.axes if axis.key in trial.params}
    overrides = {key: axis.override(trial.params[key]) for key, axis in drawn.items()}
    return {
        "number": trial.number,
        "state": _state(trial),
        "values": {key: override.partition("=")[2] for key, override in overrides.items()},
        "val_accuracy": trial.value,
        "failure": trial.user_attrs.get(FAILURE),
        "seconds": trial.duration.total_seconds() if trial.duration else None,
    }


def _state(trial: FrozenTrial) -> str:
    known = {"COMPLETE": "complete", "RUNNING": "running", "WAITING": "waiting"}
    return known.get(trial.state.name, "failed" if FAILURE in trial.user_attrs else "cut off")


def _short(text: str) -> str:
    """A number with as many places as a table can use; other values as they are."""
    try:
        return f"{float(text):.4g}"
    except ValueError:
        return text
