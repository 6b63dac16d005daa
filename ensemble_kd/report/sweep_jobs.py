"""What the jobs of a sweep left."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ensemble_kd.plain_files import read_yaml
from ensemble_kd.report.contract import Results
from ensemble_kd.report.results import read_results
from ensemble_kd.sweep_job import FAILURE

SEED = "seed"
OVERRIDES = ".hydra/overrides.yaml"


class Job(NamedTuple):
    """One job of a sweep.

    Attributes:
        path: its run folder.
        folder: the same, relative to that of the sweep.
        settings: what was set for it on the command line or by the sweeper, without the seed.
        results: what it left; None if it left nothing that can be read, or does not count.
        reason: why there are no results.
    """

    path: Path
    folder: str
    settings: dict[str, str]
    results: Results | None
    reason: str = ""


def read_jobs(folder: Path) -> list[Job]:
    """The jobs of a sweep, in the order of their numbers, whether they succeeded or not.

    Runs are deterministic, so that a setting and a seed that come twice (a sweep that was run
    again, say) are no second observation: the later job in this order counts.
    """
    found = sorted(folder.rglob(OVERRIDES), key=lambda path: _natural(str(path)))
    return _without_repeats([_read_job(path.parent.parent, folder) for path in found])


def swept(jobs: Iterable[Job]) -> list[str]:
    """The settings that differ between jobs, in the order of the command line."""
    values: dict[str, set[str | None]] = {}
    every = [job.settings for job in jobs]
    for key in dict.fromkeys(key for settings in every for key in settings):
        values[key] = {settings.get(key) for settings in every}
    return [key for key, found in values.items() if len(found) > 1]


def label(job: Job, keys: Sequence[str]) -> str:
    """The name of a job's setting: what differs between jobs, as it was set."""
    said = [f"{key}={job.settings[key]}" for key in keys if key in job.settings]
    return ", ".join(said) or "every job"


def _read_job(path: Path, root: Path) -> Job:
    folder = path.relative_to(root).as_posix()
    settings: dict[str, str] = {}
    try:
        overrides = read_yaml(path / OVERRIDES)
        pairs = (str(override).partition("=") for override in overrides or [])
        settings = {key.lstrip("+~"): value for key, _, value in pairs}
        settings.pop(SEED, None)
        if not (path / "results.json").exists():
            return Job(path, folder, settings, None, _why_not(path))
        return Job(path, folder, settings, read_results(path / "results.json"))
    except Exception as failure:  # whatever one job left must not hide the others
        return Job(path, folder, settings, None, " ".join(str(failure).split()))


def _why_not(path: Path) -> str:
    """Why a job has no results, as far as it could say so itself."""
    failure = path / FAILURE
    if failure.exists():
        return f"it failed: {' '.join(failure.read_text(encoding='utf-8').split())}"
    return "it failed, was stopped or is still running: no results.json"


def _without_repeats(jobs: Sequence[Job]) -> list[Job]:
    last: dict[tuple[int, frozenset[tuple[str, str]]], str] = {}
    for job in jobs:
        if job.results is not None:
            last[job.results["seed"], frozenset(job.settings.items())] = job.folder
    counted = []
    for job in jobs:
        if job.results is not None:
            seed = job.results["seed"]
            later = last[seed, frozenset(job.settings.items())]
            if later != job.folder:
                reason = f"job {later} repeats it: the same settings and seed {seed}"
                job = job._replace(results=None, reason=reason)
        counted.append(job)
    return counted


def _natural(path: str) -> list[tuple[int, str]]:
    """A sort key that puts 2 before 10."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path)
    ]
