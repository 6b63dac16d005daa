"""What the jobs of a sweep say together: the content of ``sweep.json``."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ensemble_kd.errors import UserError
from ensemble_kd.report.contract import Results
from ensemble_kd.report.roles import in_order
from ensemble_kd.report.sweep_against import (
    STUDENT,
    compare_pairs,
    compare_settings,
    find_reference,
    gain,
    references,
)
from ensemble_kd.report.sweep_churn import churn
from ensemble_kd.report.sweep_contract import (
    SCHEMA,
    AgainstEntry,
    GroupEntry,
    JobEntry,
    MissingEntry,
    SinglesEntry,
    Spread,
    Sweep,
)
from ensemble_kd.report.sweep_jobs import Job, label, swept
from ensemble_kd.report.sweep_metrics import METRICS, Metric, find_metric, value

SPLITS = ("val", "test")
SINGLE = "control/single_teacher/"
ACCURACY = "accuracy"


class Asked(NamedTuple):
    """What a report on a sweep is to say.

    Attributes:
        metric: by what settings are compared, a key of ``METRICS``.
        margin: smallest gain worth having, in the unit of the metric; its own unless given.
        against: a predictor of the runs; the student without teachers unless given.
    """

    metric: str = ACCURACY
    margin: float | None = None
    against: str | None = None


PLAIN = Asked()


class Counted(NamedTuple):
    """A job that left results, and these."""

    job: Job
    results: Results


def summarise(jobs: Sequence[Job], asked: Asked = PLAIN) -> Sweep:
    """The content of ``sweep.json``.

    Jobs with the same settings, whatever their seed, are a group. A gain is that of a job's student
    over another predictor of the same run, so it is paired by seed.

    Args:
        jobs: from ``read_jobs``.
        asked: by what, and against what, the settings are compared.

    Raises:
        UserError: there is no such metric or predictor, no job has the metric, or the margin is not
            a number above 0.
    """
    metric, margin = find_metric(asked.metric), _margin(asked)
    keys = swept(jobs)
    groups: dict[str, list[Counted]] = {}
    for job in jobs:
        if job.results is not None:
            groups.setdefault(label(job, keys), []).append(Counted(job, job.results))
    results = {name: [each.results for each in members] for name, members in groups.items()}
    reference = find_reference(results, asked.against)
    against = compare_settings(results, reference, metric, margin)
    summary = Sweep(
        schema=SCHEMA,
        metric=metric.entry(),
        margin=margin,
        alpha=_level(),
        reference=reference,
        settings=keys,
        groups=[
            _group(name, members, keys, reference, metric, against[name])
            for name, members in groups.items()
        ],
        between=compare_pairs(results, metric, margin),
        jobs=[_job(name, each, reference, metric) for name, own in groups.items() for each in own],
        missing=[
            MissingEntry(folder=job.folder, settings=job.settings, reason=job.reason)
            for job in jobs
            if job.results is None
        ],
    )
    found = any(group["student"][split]["n"] for group in summary["groups"] for split in SPLITS)
    if groups and not found and metric.name != ACCURACY:
        raise UserError(f"metric: no job of the sweep has {metric.name}")
    return summary


def _margin(asked: Asked) -> float:
    """The margin as ``results.json`` writes values."""
    metric = find_metric(asked.metric)
    margin = metric.margin if asked.margin is None else asked.margin
    if not 0 < margin < math.inf:
        raise UserError(f"margin: expected a number above 0, got {margin:g}")
    return margin / metric.factor


def _level() -> float:
    from ensemble_kd.statistics import ALPHA

    return ALPHA


def _group(
    name: str,
    members: Sequence[Counted],
    keys: Sequence[str],
    reference: str | None,
    metric: Metric,
    against: Mapping[str, AgainstEntry],
) -> GroupEntry:
    runs = [each.results for each in members]
    churned = [STUDENT] if reference is None else [STUDENT, reference]
    return GroupEntry(
        label=name,
        settings={key: members[0].job.settings.get(key) for key in keys},
        n=len(members),
        seeds=[run["seed"] for run in runs],
        student={s: spread(value(run, STUDENT, s, metric.name) for run in runs) for s in SPLITS},
        gain={s: spread(_gain(run, reference, s, metric) for run in runs) for s in SPLITS},
        predictors={
            predictor: {split: _metrics(runs, predictor, split) for split in SPLITS}
            for predictor in in_order({each for run in runs for each in run["predictors"]})
        },
        against=dict(against),
        churn=churn([each.job.path for each in members], churned),
        singles=_singles(runs, metric),
    )


def _metrics(runs: Sequence[Results], predictor: str, split: str) -> dict[str, Spread]:
    """Means of all metrics that any of the runs has."""
    found = {
        metric: spread(value(run, predictor, split, metric) for run in runs) for metric in METRICS
    }
    return {metric: each for metric, each in found.items() if each["n"] or metric == ACCURACY}


def _gain(run: Results, reference: str | None, split: str, metric: Metric) -> float | None:
    return None if reference is None else gain(run, reference, split, metric)


def _singles(runs: Sequence[Results], metric: Metric) -> dict[str, SinglesEntry] | None:
    """Students of single teachers, by split; that which is best on validation is one for each run.

    None without any.
    """
    means: dict[str, list[float]] = {split: [] for split in SPLITS}
    best: dict[str, list[float]] = {split: [] for split in SPLITS}
    for run in runs:
        names = in_order(name for name in run["predictors"] if name.startswith(SINGLE))
        found = {s: {n: value(run, n, s, metric.name) for n in names} for s in SPLITS}
        known = {name: each for name, each in found["val"].items() if each is not None}
        chosen = max(known, key=lambda name: metric.goodness(known[name]), default=None)
        for split in SPLITS:
            own = [each for each in found[split].values() if each is not None]
            if own:
                means[split].append(statistics.fmean(own))
            if chosen is not None and (of_best := found[split][chosen]) is not None:
                best[split].append(of_best)
    if not any(means.values()):
        return None
    return {s: SinglesEntry(mean=spread(means[s]), best=spread(best[s])) for s in SPLITS}


def _job(name: str, each: Counted, reference: str | None, metric: Metric) -> JobEntry:
    job, run = each
    return JobEntry(
        folder=job.folder,
        group=name,
        settings=job.settings,
        seed=run["seed"],
        student={split: value(run, STUDENT, split, metric.name) for split in SPLITS},
        gain={
            other: {split: gain(run, other, split, metric) for split in SPLITS}
            for other in references(run["predictors"], reference)
        },
    )


def spread(values: Iterable[float | None]) -> Spread:
    """Mean and sample standard deviation (n - 1) of the values that are known."""
    known = [each for each in values if each is not None]
    return Spread(
        mean=statistics.fmean(known) if known else None,
        std=statistics.stdev(known) if len(known) > 1 else None,
        n=len(known),
    )
