"""What a sweep found out: its jobs grouped by setting, seeds held against seeds."""

from __future__ import annotations

import re
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from ensemble_kd.errors import UserError
from ensemble_kd.files import write_json
from ensemble_kd.report.console import number, open_console, show_table, start_table
from ensemble_kd.report.plots import save_figure, sweep_figure
from ensemble_kd.report.results import Results, read_results

SCHEMA = 1
SEED = "seed"
SPLITS = ("val", "test")
PREDICTORS = ("student", "control", "ensemble")
GAIN = "gain"
OVERRIDES = ".hydra/overrides.yaml"


class Job(NamedTuple):
    """One job of a sweep.

    Attributes:
        folder: its run folder, relative to that of the sweep.
        settings: what was set for it on the command line or by the sweeper, without the seed.
        results: what it left; None if it left nothing that can be read.
        reason: why there are no results.
    """

    folder: str
    settings: dict[str, str]
    results: Results | None
    reason: str = ""


class SweepReport(Callback):
    """Reports on a sweep when its last job is done: a table, ``sweep.json`` and ``sweep.png``.

    It never stops the sweep: what goes wrong here is one line on standard error.
    """

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Read what the jobs left and write what they say together.

        Args:
            config: the configuration of the sweep; ``hydra.sweep.dir`` is read.
            kwargs: what else Hydra hands over.
        """
        try:
            report_sweep(Path(config.hydra.sweep.dir))
        except Exception as failure:
            message = " ".join(str(failure).split()) or type(failure).__name__
            print(f"no report on the sweep: {message}", file=sys.stderr)


def report_sweep(folder: Path, file: TextIO | None = None) -> dict[str, Any]:
    """Write ``sweep.json`` and ``sweep.png`` into the folder of a sweep and print its table.

    Args:
        folder: the folder whose sub-folders are the run folders of the jobs.
        file: where to print; standard output unless given.

    Returns:
        The content of ``sweep.json``.

    Raises:
        UserError: no job left results, or the folder cannot be written.
    """
    summary = summarise(read_jobs(folder))
    if not summary["groups"]:
        raise UserError(f"{folder}: expected results of at least one job, found none")
    write_json(folder / "sweep.json", summary)
    save_figure(sweep_figure(summary), folder / "sweep.png")
    _print_summary(summary, folder, file)
    return summary


def read_jobs(folder: Path) -> list[Job]:
    """The jobs of a sweep, in the order of their numbers, whether they succeeded or not."""
    found = sorted(folder.rglob(OVERRIDES), key=lambda path: _natural(str(path)))
    return [_read_job(path.parent.parent, folder) for path in found]


def summarise(jobs: Sequence[Job]) -> dict[str, Any]:
    """The content of ``sweep.json``.

    Jobs with the same settings, whatever their seed, are a group. The gain of a job is the accuracy
    of its student minus that of its control, so it is paired by seed. ``std`` is the sample
    standard deviation (n - 1), null for a single value.

    Args:
        jobs: from ``read_jobs``.
    """
    swept = _swept(jobs)
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        if job.results is not None:
            groups.setdefault(_label(job, swept), []).append(job)
    entries = {
        label: [_entry(job, job.results, label) for job in members if job.results is not None]
        for label, members in groups.items()
    }
    return {
        "schema": SCHEMA,
        "settings": swept,
        "groups": [_group(label, own, swept) for label, own in entries.items()],
        "jobs": [entry for own in entries.values() for entry in own],
        "missing": [
            {"folder": job.folder, "settings": job.settings, "reason": job.reason}
            for job in jobs
            if job.results is None
        ],
    }


def _read_job(folder: Path, root: Path) -> Job:
    name = folder.relative_to(root).as_posix()
    settings: dict[str, str] = {}
    try:
        overrides = OmegaConf.to_container(OmegaConf.load(folder / OVERRIDES))
        pairs = (str(override).partition("=") for override in overrides or [])
        settings = {key.lstrip("+~"): value for key, _, value in pairs}
        settings.pop(SEED, None)
        if not (folder / "results.json").exists():
            return Job(name, settings, None, "it failed or was stopped: no results.json")
        return Job(name, settings, read_results(folder / "results.json"))
    except Exception as failure:  # whatever one job left must not hide the others
        return Job(name, settings, None, " ".join(str(failure).split()))


def _swept(jobs: Iterable[Job]) -> list[str]:
    """The settings that differ between jobs, in the order of the command line."""
    values: dict[str, set[str | None]] = {}
    every = [job.settings for job in jobs]
    for key in dict.fromkeys(key for settings in every for key in settings):
        values[key] = {settings.get(key) for settings in every}
    return [key for key, found in values.items() if len(found) > 1]


def _label(job: Job, swept: Sequence[str]) -> str:
    said = [f"{key}={job.settings[key]}" for key in swept if key in job.settings]
    return ", ".join(said) or "every job"


def _group(
    label: str, entries: Sequence[Mapping[str, Any]], swept: Sequence[str]
) -> dict[str, Any]:
    return {
        "label": label,
        "settings": {key: entries[0]["settings"].get(key) for key in swept},
        "n": len(entries),
        "seeds": [entry["seed"] for entry in entries],
        **{
            what: {split: _statistics(entry[what][split] for entry in entries) for split in SPLITS}
            for what in (*PREDICTORS, GAIN)
        },
    }


def _entry(job: Job, results: Results, label: str) -> dict[str, Any]:
    """A job as ``sweep.json`` lists it: accuracies and gain on both splits."""
    accuracies = {
        name: {split: _accuracy(results, name, split) for split in SPLITS} for name in PREDICTORS
    }
    return {
        "folder": job.folder,
        "group": label,
        "settings": job.settings,
        "seed": results["seed"],
        **accuracies,
        GAIN: {
            split: _difference(accuracies["student"][split], accuracies["control"][split])
            for split in SPLITS
        },
    }


def _accuracy(results: Results, name: str, split: str) -> float | None:
    entry: Mapping[str, Any] = results["predictors"].get(name) or {}
    accuracy: float | None = entry.get(split, {}).get("accuracy")
    return accuracy


def _difference(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def _statistics(values: Iterable[float | None]) -> dict[str, float | int | None]:
    known = [value for value in values if value is not None]
    return {
        "mean": statistics.fmean(known) if known else None,
        "std": statistics.stdev(known) if len(known) > 1 else None,
        "n": len(known),
    }


def _print_summary(summary: Mapping[str, Any], folder: Path, file: TextIO | None) -> None:
    console = open_console(file)
    table = start_table(("setting", "n", *PREDICTORS, GAIN), plain=not console.is_terminal)
    for group in summary["groups"]:
        cells = [_spread(group[name]["test"], "{:.1f}") for name in PREDICTORS]
        table.add_row(
            group["label"], str(group["n"]), *cells, _spread(group[GAIN]["test"], "{:+.1f}")
        )
    title = "test accuracy in %, mean ± standard deviation over seeds; gain = student - control"
    show_table(console, title, table)
    for job in summary["missing"]:
        line = f"left out: job {job['folder']}: {job['reason']}"
        console.print(line, markup=False, soft_wrap=True)
    console.print(f"sweep: {folder}", markup=False, soft_wrap=True)


def _spread(found: Mapping[str, float | None], form: str) -> str:
    mean, std = found["mean"], found["std"]
    middle = number(None if mean is None else 100 * mean, form)
    return middle if std is None else f"{middle} ± {100 * std:.1f}"


def _natural(path: str) -> list[tuple[int, str]]:
    """A sort key that puts 2 before 10."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path)
    ]
