"""``results.json``: everything a run found out, as plain numbers. Its keys are a contract."""

from __future__ import annotations

import importlib.metadata
import json
import math
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict, cast

from ensemble_kd.errors import UserError
from ensemble_kd.files import write_json
from ensemble_kd.version import __version__

if TYPE_CHECKING:
    from ensemble_kd.evaluation import Measured

SCHEMA = 1

PACKAGES = (
    "torch",
    "pytorch-lightning",
    "torchmetrics",
    "hydra-core",
    "omegaconf",
    "numpy",
    "scipy",
    "scikit-learn",
    "safetensors",
    "onnx",
    "onnxscript",
    "onnxruntime",
)
"""Distributions whose version may move a number."""


class Trained(NamedTuple):
    """One stage of a run, as it is reported.

    Attributes:
        name: such as ``teacher/0``.
        digest: key of the artefact.
        reused: it was found in the store and not trained again.
        epochs: passes over the training split.
        seconds: wall-clock time that it took in this run.
        parameters: of the network that it trained; None where nobody knows.
    """

    name: str
    digest: str
    reused: bool
    epochs: int
    seconds: float
    parameters: int | None


class AnyScores(TypedDict):
    """How good a predictor is on one split; null where it is not defined."""

    accuracy: float | None
    nll: float | None
    ece: float | None
    n: int


class ScoreEntry(AnyScores, total=False):
    """The same, and what only some evaluations measure."""

    span_f1: float | None


class PredictorEntry(TypedDict):
    """A predictor on both splits, its size and its speed."""

    val: ScoreEntry
    test: ScoreEntry
    parameters: int | None
    milliseconds_per_1000: float | None


class PairEntry(TypedDict):
    """How near two predictors are on one split."""

    agreement: float | None
    kl: float | None


class StageEntry(TypedDict):
    """A ``Trained`` by its field names."""

    name: str
    digest: str
    reused: bool
    epochs: int
    seconds: float
    parameters: int | None


class Contract(TypedDict):
    """What every ``results.json`` of schema 1 holds."""

    schema: int
    seed: int
    strategy: str
    data: dict[str, Any]
    predictors: dict[str, PredictorEntry]
    pairs: dict[str, dict[str, PairEntry]]
    stages: list[StageEntry]
    verdict: str
    versions: dict[str, str]


class Results(Contract, total=False):
    """The content of ``results.json``, schema 1.

    ``export`` is there when the student was exported: the largest difference between the eager and
    the exported network, or why there is none.
    """

    export: dict[str, float | str]


def compile_results(
    *,
    seed: int,
    strategy: str,
    data: Mapping[str, Any],
    val: Measured,
    test: Measured,
    parameters: Mapping[str, int | None],
    stages: Iterable[Trained],
    milliseconds: Mapping[str, float] | None = None,
) -> Results:
    """Put what was measured into the form of ``results.json``.

    Args:
        seed: of the run.
        strategy: name of the strategy.
        data: what describes the data: name, digest, sizes of the splits.
        val: what was measured on the validation split.
        test: what was measured on the test split, for the same predictors.
        parameters: number of parameters, by predictor; None where nobody knows.
        stages: in the order of training.
        milliseconds: time per 1,000 samples, by predictor, for those that were timed.

    Raises:
        ValueError: the splits were not measured for the same predictors, or one has no size.
    """
    names = list(test.predictors)
    for what, known in {"val": val.predictors, "parameters": parameters}.items():
        missing = [name for name in names if name not in known]
        if missing:
            raise ValueError(f"{what} must cover every predictor, got none for {missing}")
    times = milliseconds or {}
    results = Results(
        schema=SCHEMA,
        seed=seed,
        strategy=strategy,
        data=dict(data),
        predictors={
            name: PredictorEntry(
                val=_scores(val, name),
                test=_scores(test, name),
                parameters=parameters[name],
                milliseconds_per_1000=_finite(times.get(name, math.nan)),
            )
            for name in names
        },
        pairs={"|".join(pair): {"test": _pair(test, pair)} for pair in test.pairs},
        stages=[cast(StageEntry, stage._asdict()) for stage in stages],
        verdict="",
        versions=versions(),
    )
    results["verdict"] = verdict(results)
    return results


def verdict(results: Results) -> str:
    """One sentence: did distillation help, by how much, and how far is that to be trusted?

    A difference within 1.96 standard errors of two independent proportions is called unclear. Both
    networks see the same samples, so this is on the cautious side; it is one seed in any case.
    """
    if "control" not in results["predictors"]:
        return (
            "no verdict: without a control there is nothing to compare with (control=true adds it)"
        )
    student = results["predictors"]["student"]["test"]
    control = results["predictors"]["control"]["test"]
    a, b, n = student["accuracy"], control["accuracy"], student["n"]
    if a is None or b is None or n == 0:
        return "no verdict: the test split has no labels"
    gain = a - b
    error = math.sqrt((a * (1 - a) + b * (1 - b)) / n)
    if round(gain * n) == 0:
        word = "distillation made no difference"
    elif abs(gain) <= 1.96 * error:
        word = "distillation made no clear difference"
    else:
        word = "distillation helped" if gain > 0 else "distillation hurt"
    side = "over" if gain > 0 else "against"
    return (
        f"{word}: {100 * gain:+.1f} points {side} the same student without teachers, "
        f"on {n:,} test samples (one seed: not a significance test)"
    )


def versions() -> dict[str, str]:
    """Versions of Python, of this package and of what it computes with; nothing is imported."""
    found = {"python": platform.python_version(), "ensemble-kd": __version__}
    installed = {package: _version(package) for package in PACKAGES}
    return found | {package: version for package, version in installed.items() if version}


def write_results(results: Results, path: Path) -> None:
    """Write the file, whole or not at all.

    Raises:
        UserError: the file system refuses.
    """
    write_json(path, results)


def read_results(path: Path) -> Results:
    """Read a file that ``write_results`` wrote.

    Raises:
        UserError: it is not there, not whole, or of another schema.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as failure:
        raise UserError(f"cannot read {path}: {failure.strerror or failure}") from failure
    except ValueError as failure:
        raise UserError(f"{path}: expected the JSON of a run, got something else") from failure
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA:
        raise UserError(f"{path}: expected schema {SCHEMA}, got {schema!r}")
    missing = sorted(Contract.__required_keys__ - set(content))
    if missing:
        raise UserError(f"{path}: expected the key {missing[0]!r}, which is not there")
    return cast(Results, content)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _scores(measured: Measured, name: str) -> ScoreEntry:
    scores = measured.predictors[name]
    entry = ScoreEntry(
        accuracy=_finite(scores.accuracy),
        nll=_finite(scores.nll),
        ece=_finite(scores.ece),
        n=scores.n,
    )
    if scores.span_f1 is not None:
        entry["span_f1"] = _finite(scores.span_f1)
    return entry


def _pair(measured: Measured, pair: tuple[str, str]) -> PairEntry:
    near = measured.pairs[pair]
    return PairEntry(agreement=_finite(near.agreement), kl=_finite(near.kl))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
