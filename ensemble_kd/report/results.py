"""``results.json``: everything a run found out, as plain numbers."""

from __future__ import annotations

import importlib.metadata
import math
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from ensemble_kd.errors import UserError
from ensemble_kd.files import write_json
from ensemble_kd.report.contract import (
    SCHEMA,
    LatencyEntry,
    PairEntry,
    PredictorEntry,
    Results,
    ScoreEntry,
    SpoiltEntry,
    StageEntry,
    TeachersEntry,
    TransferEntry,
    WorthEntry,
)
from ensemble_kd.report.form import read_form
from ensemble_kd.report.roles import ALONE
from ensemble_kd.version import __version__

if TYPE_CHECKING:
    from ensemble_kd.costs import Cost
    from ensemble_kd.evaluation import Measured
    from ensemble_kd.robustness import Spoilt
    from ensemble_kd.scorecard import Card
    from ensemble_kd.worth import Worth

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
        teachers: names of those who taught it.
    """

    name: str
    digest: str
    reused: bool
    epochs: int
    seconds: float
    parameters: int | None
    teachers: tuple[str, ...] = ()


def compile_results(
    *,
    seed: int,
    strategy: str,
    data: Mapping[str, Any],
    val: Card,
    test: Card,
    costs: Mapping[str, Cost],
    stages: Iterable[Trained],
    worth: Mapping[str, Worth] | None = None,
    robustness: Iterable[Spoilt] = (),
) -> Results:
    """Put what was measured into the form of ``results.json``.

    Args:
        seed: of the run.
        strategy: name of the strategy.
        data: what describes the data: name, digest, sizes of the splits.
        val: what was measured on the validation split.
        test: what was measured on the test split, for the same predictors.
        costs: of each predictor.
        stages: in the order of training.
        worth: of each teacher, where there are several.
        robustness: what was measured on spoilt test samples.

    Raises:
        ValueError: the splits were not measured for the same predictors, or one has no cost.
    """
    names = list(test.measured.predictors)
    for what, known in {"val": val.measured.predictors, "costs": costs}.items():
        missing = [name for name in names if name not in known]
        if missing:
            raise ValueError(f"{what} must cover every predictor, got none for {missing}")
    cards = {"val": val, "test": test}
    results = Results(
        schema=SCHEMA,
        seed=seed,
        strategy=strategy,
        data=dict(data),
        predictors={
            name: _predictor(val.measured, test.measured, name, costs[name]) for name in names
        },
        pairs={
            "|".join(pair): {split: _pair(card.measured, pair) for split, card in cards.items()}
            for pair in test.measured.pairs
        },
        transfer={
            name: {
                split: cast(TransferEntry, _fields(card.transfer[name]))
                for split, card in cards.items()
            }
            for name in test.transfer
        },
        robustness=[cast(SpoiltEntry, _fields(spoilt)) for spoilt in robustness],
        stages=[
            cast(StageEntry, {**stage._asdict(), "teachers": list(stage.teachers)})
            for stage in stages
        ],
        verdict="",
        versions=versions(),
    )
    if test.teachers is not None:
        together = {split: card.teachers for split, card in cards.items() if card.teachers}
        results["teachers"] = {k: cast(TeachersEntry, _fields(v)) for k, v in together.items()}
    if worth:
        results["worth"] = {k: cast(WorthEntry, _fields(v)) for k, v in worth.items()}
    results["verdict"] = verdict(results)
    return results


def verdict(results: Results) -> str:
    """One sentence: did distillation help, by how much, and how far is that to be trusted?

    A difference within 1.96 standard errors of two independent proportions is called unclear. Both
    networks see the same samples, so this is on the cautious side; it is one seed in any case. The
    places of a sequence are not independent of each other: there, sequences are counted.
    """
    if ALONE not in results["predictors"]:
        return (
            "no verdict: without a control there is nothing to compare with "
            "(controls=[no_teacher] adds one)"
        )
    student = results["predictors"]["student"]["test"]
    control = results["predictors"][ALONE]["test"]
    a, b, n = student["accuracy"], control["accuracy"], student["n"]
    if a is None or b is None or n == 0:
        return "no verdict: the test split has no labels"
    gain = a - b
    units = min(n, results["data"].get("test", n))
    error = math.sqrt((a * (1 - a) + b * (1 - b)) / units)
    if round(gain * n) == 0:
        word = "distillation made no difference"
    elif abs(gain) <= 1.96 * error:
        word = "distillation made no clear difference"
    else:
        word = "distillation helped" if gain > 0 else "distillation hurt"
    side = "over" if gain > 0 else "against"
    return (
        f"{word}: {100 * gain:+.1f} points {side} the same student without teachers, "
        f"on {_counted(n, units)} (one seed: not a significance test)"
    )


def _counted(n: int, units: int) -> str:
    return f"{n:,} test samples" if units == n else f"{n:,} places in {units:,} test samples"


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
        UserError: it is not there, not whole, of another schema or of another form.
    """
    content: Results = read_form(path, Results, SCHEMA, "the JSON of a run")
    if "student" not in content["predictors"]:
        raise UserError(f"{path}: predictors: expected the key 'student', which is not there")
    return content


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _predictor(val: Measured, test: Measured, name: str, cost: Cost) -> PredictorEntry:
    return PredictorEntry(
        val=_scores(val, name),
        test=_scores(test, name),
        parameters=cost.parameters,
        bytes=cost.bytes,
        multiply_adds=cost.multiply_adds,
        milliseconds_per_1000=cost.milliseconds_per_1000,
        latency=cost.latency and LatencyEntry(p50=cost.latency.p50, p95=cost.latency.p95),
    )


def _scores(measured: Measured, name: str) -> ScoreEntry:
    scores = measured.predictors[name]
    entry = ScoreEntry(
        accuracy=_finite(scores.accuracy),
        macro_f1=_finite(scores.macro_f1),
        nll=_finite(scores.nll),
        brier=_finite(scores.brier),
        ece=_finite(scores.ece),
        n=scores.n,
        recall=[_finite(share) for share in scores.recall],
    )
    if scores.span_f1 is not None:
        entry["span_f1"] = _finite(scores.span_f1)
    return entry


def _pair(measured: Measured, pair: tuple[str, str]) -> PairEntry:
    return cast(PairEntry, _fields(measured.pairs[pair]))


def _fields(found: NamedTuple) -> dict[str, Any]:
    """The fields of a tuple by name; null where one is not finite."""
    return {
        name: _finite(value) if isinstance(value, float) else value
        for name, value in found._asdict().items()
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
