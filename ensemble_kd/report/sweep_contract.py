"""The form of ``sweep.json``: its keys are a contract. Null stands where nothing is defined.

Values are as in ``results.json`` (accuracies are shares, not percent). ``SPLIT`` is ``val`` or
``test``; what compares settings reads the test split, what chooses between them the validation
split.
"""

from __future__ import annotations

from typing import TypedDict

SCHEMA = 2


class MetricEntry(TypedDict):
    """What the settings are compared by.

    ``unit`` stands behind a value that was multiplied by ``factor`` (100: points) and is written
    with ``digits`` behind the point.
    """

    name: str
    unit: str
    factor: float
    digits: int
    higher_is_better: bool


class Spread(TypedDict):
    """Mean and sample standard deviation (n - 1) over the jobs that have a value."""

    mean: float | None
    std: float | None
    n: int


class AgainstEntry(TypedDict):
    """A setting against another predictor of the same runs, paired by seed; positive is better.

    ``low`` and ``high`` are the 95% bootstrap interval (BCa) of the mean gain, null of one seed.
    ``p`` is that of the two-sided sign-flip test of no gain, ``p_below`` that of the one-sided test
    which asks whether the gain is below the margin; ``exact`` says that all patterns of signs were
    counted. ``p_holm`` and ``p_below_holm`` are corrected for the ``family``, the number of
    settings of the sweep that were compared with this predictor. ``effect_size`` is Cohen's d_z
    with Hedges' correction, null with fewer than 3 seeds or without spread. ``verdict`` is HELPS,
    DOES NOT HELP or INCONCLUSIVE, ``sentence`` says why.
    """

    n: int
    mean: float
    std: float | None
    low: float | None
    high: float | None
    effect_size: float | None
    p: float
    p_below: float
    exact: bool
    family: int
    p_holm: float
    p_below_holm: float
    verdict: str
    sentence: str


class ChurnEntry(TypedDict):
    """Mean over pairs of seeds of the share of samples on which the two name different classes.

    ``samples`` are those that the test splits of a pair have in common, in the mean over pairs.
    """

    mean: float
    pairs: int
    samples: float


class SinglesEntry(TypedDict):
    """Students of single teachers: their mean, and the one that is best on validation."""

    mean: Spread
    best: Spread


class GroupEntry(TypedDict):
    """A setting: all its jobs, which differ by the seed.

    ``student`` and ``gain`` (over the ``reference`` of the sweep) are of the metric, by split;
    ``predictors`` has all metrics: predictor -> split -> metric. ``against`` is by the name of a
    control that all jobs of the group have, the reference of the sweep first. ``churn`` is by
    predictor, the student and the reference, null where predictions were not kept or no two jobs
    share a test sample. ``singles`` is null without controls of single teachers.
    """

    label: str
    settings: dict[str, str | None]
    n: int
    seeds: list[int]
    student: dict[str, Spread]
    gain: dict[str, Spread]
    predictors: dict[str, dict[str, dict[str, Spread]]]
    against: dict[str, AgainstEntry]
    churn: dict[str, ChurnEntry | None]
    singles: dict[str, SinglesEntry] | None


class BetweenEntry(TypedDict):
    """Two settings by the seeds that both have; positive: ``one`` is better than ``other``.

    ``p_holm`` is corrected for all pairs of the sweep; ``better`` is the label of the better one,
    null where nothing can be called (``p_holm`` above 0.05, or fewer than 6 seeds).
    """

    one: str
    other: str
    n: int
    mean: float
    std: float | None
    low: float | None
    high: float | None
    effect_size: float | None
    p: float
    exact: bool
    p_holm: float
    better: str | None


class JobEntry(TypedDict):
    """A job with results: the metric of its student, and its gain over each control, by split."""

    folder: str
    group: str
    settings: dict[str, str]
    seed: int
    student: dict[str, float | None]
    gain: dict[str, dict[str, float | None]]


class MissingEntry(TypedDict):
    """A job that counts nowhere: it left no results, or a later one repeats its seed."""

    folder: str
    settings: dict[str, str]
    reason: str


class Sweep(TypedDict):
    """The content of ``sweep.json``.

    ``margin`` is the smallest gain worth having, ``alpha`` the level of each family of tests,
    ``reference`` the predictor that the verdicts shown first are against: ``control/no_teacher``
    unless another was asked for, null where no job has one. ``settings`` names what differs between
    jobs, besides the seed. ``between`` is null with more than 20 settings.
    """

    schema: int
    metric: MetricEntry
    margin: float
    alpha: float
    reference: str | None
    settings: list[str]
    groups: list[GroupEntry]
    between: list[BetweenEntry] | None
    jobs: list[JobEntry]
    missing: list[MissingEntry]
