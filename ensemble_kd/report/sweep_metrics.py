"""By what the settings of a sweep can be compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ensemble_kd.errors import UserError, nearest
from ensemble_kd.report.contract import Results
from ensemble_kd.report.sweep_contract import MetricEntry


class Metric(NamedTuple):
    """A number that ``results.json`` has for each predictor.

    Attributes:
        name: its key there.
        title: as the head of a column.
        unit: behind a value that was multiplied by the factor.
        margin: the smallest gain worth having, in this unit.
        factor: 100 where a share is written as points.
        digits: behind the point.
        higher_is_better: a gain is what the student has more; otherwise what it has less.
    """

    name: str
    title: str
    unit: str
    margin: float
    factor: float = 100.0
    digits: int = 1
    higher_is_better: bool = True

    def gain(self, student: float | None, reference: float | None) -> float | None:
        """By how much the student is better; None where either is not known."""
        if student is None or reference is None:
            return None
        return student - reference if self.higher_is_better else reference - student

    def formula(self, student: str, reference: str) -> str:
        """What a gain is, in words."""
        more, less = (student, reference) if self.higher_is_better else (reference, student)
        return f"{more} - {less}"

    def goodness(self, value: float) -> float:
        """A value turned round if need be, so that more is better."""
        return value if self.higher_is_better else -value

    def entry(self) -> MetricEntry:
        """The metric as ``sweep.json`` describes it."""
        return MetricEntry(
            name=self.name,
            unit=self.unit,
            factor=self.factor,
            digits=self.digits,
            higher_is_better=self.higher_is_better,
        )


METRICS = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "accuracy", "points of accuracy", 0.5),
        Metric("macro_f1", "macro F1", "points of macro F1", 0.5),
        Metric("span_f1", "span F1", "points of span F1", 0.5),
        Metric("nll", "NLL", "nats of NLL", 0.01, 1.0, 3, higher_is_better=False),
        Metric("brier", "Brier", "of the Brier score", 0.005, 1.0, 4, higher_is_better=False),
        Metric("ece", "ECE", "points of ECE", 0.5, higher_is_better=False),
    )
}


def find_metric(name: str) -> Metric:
    """The metric of a name.

    Raises:
        UserError: there is none.
    """
    if name not in METRICS:
        raise UserError(f"metric: there is no {name!r}{nearest(name, METRICS)}")
    return METRICS[name]


def value(results: Results, predictor: str, split: str, metric: str) -> float | None:
    """What a run found; None where it has no such predictor or metric."""
    entry: Mapping[str, object] = results["predictors"].get(predictor) or {}
    scores = entry.get(split)
    found = scores.get(metric) if isinstance(scores, Mapping) else None
    return found if isinstance(found, int | float) else None
