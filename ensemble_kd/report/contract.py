"""The form of ``results.json``: its keys are a contract. Null stands where nothing is defined."""

from __future__ import annotations

from typing import Any, TypedDict

SCHEMA = 2


class AnyScores(TypedDict):
    """How good a predictor is on the ``n`` labelled samples of one split."""

    accuracy: float | None
    macro_f1: float | None
    nll: float | None
    brier: float | None
    ece: float | None
    n: int
    recall: list[float | None]


class ScoreEntry(AnyScores, total=False):
    """The same, and what only some evaluations measure."""

    span_f1: float | None


class LatencyEntry(TypedDict):
    """Milliseconds for a single sample."""

    p50: float
    p95: float


class PredictorEntry(TypedDict):
    """A predictor on both splits, and what it costs."""

    val: ScoreEntry
    test: ScoreEntry
    parameters: int | None
    bytes: int | None
    multiply_adds: int | None
    milliseconds_per_1000: float | None
    latency: LatencyEntry | None


class PairEntry(TypedDict):
    """How near two predictors are on one split; the second is the reference."""

    agreement: float | None
    kl: float | None
    probability_loyalty: float | None


class TeachersEntry(TypedDict):
    """What the teachers are like together on one split."""

    disagreement: float | None
    q_statistic: float | None
    js_divergence: float | None
    oracle_accuracy: float | None


class TransferEntry(TypedDict):
    """What passed from the teachers to a learner on one split."""

    error_inheritance: float | None
    positive: float | None
    positive_n: int
    negative: float | None
    negative_n: int


class WorthEntry(TypedDict):
    """What a teacher adds to the accuracy of the ensemble on the validation split."""

    leave_one_out: float | None
    leave_one_out_error: float | None
    shapley: float | None
    shapley_error: float | None


class SpoiltEntry(TypedDict):
    """Accuracies on test samples under one corruption of one severity."""

    corruption: str
    severity: int
    n: int
    accuracy: dict[str, float]


class StageEntry(TypedDict):
    """One stage of a run."""

    name: str
    digest: str
    reused: bool
    epochs: int
    seconds: float
    parameters: int | None
    teachers: list[str]


class Contract(TypedDict):
    """What every ``results.json`` holds."""

    schema: int
    seed: int
    strategy: str
    data: dict[str, Any]
    predictors: dict[str, PredictorEntry]
    pairs: dict[str, dict[str, PairEntry]]
    transfer: dict[str, dict[str, TransferEntry]]
    robustness: list[SpoiltEntry]
    stages: list[StageEntry]
    verdict: str
    versions: dict[str, str]


class Results(Contract, total=False):
    """The content of ``results.json``.

    ``teachers`` and ``worth`` are there with two teachers or more. ``export`` is there when the
    student was exported: the largest difference between the eager and the exported network, or why
    there is none.
    """

    teachers: dict[str, TeachersEntry]
    worth: dict[str, WorthEntry]
    export: dict[str, float | str]
