"""Numbers for what predictors said: how good each is, and how near two of them are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassF1Score,
    MulticlassRecall,
)

from ensemble_kd.metrics import (
    Agreement,
    Brier,
    NegativeLogLikelihood,
    PredictiveKL,
    ProbabilityLoyalty,
    SpanF1,
)
from ensemble_kd.metrics.whole import whole
from ensemble_kd.predictions import Predictions, by_sample
from ensemble_kd.types import UNLABELLED

SURE = 1 - 2**-24
"""The largest float32 below 1."""

MOST_CLASSES = 4096
"""Of which recall and F1 are given one by one: torchmetrics counts them in a square table."""

NOTHING = float("nan")


class Scores(NamedTuple):
    """How good a predictor is on the labelled samples of a split.

    Attributes:
        accuracy: share of them whose class it ranks first; NaN when there are none, as the others.
        nll: mean negative log-likelihood, in nats.
        ece: top-label expected calibration error.
        n: how many there are.
        span_f1: F1 of whole entities, of classes that are BIO tags, if it was asked for.
        macro_f1: mean over classes of F1; a class that neither occurs nor is named does not count.
            NaN with more than ``MOST_CLASSES``.
        brier: mean of the Brier score, summed over all classes, in [0, 2].
        recall: by class, NaN for one that does not occur; empty with more than ``MOST_CLASSES``.
    """

    accuracy: float
    nll: float
    ece: float
    n: int
    span_f1: float | None = None
    macro_f1: float = NOTHING
    brier: float = NOTHING
    recall: tuple[float, ...] = ()


class Nearness(NamedTuple):
    """How near two predictors are on all samples of a split, labelled or not.

    Attributes:
        agreement: share of the samples on which both rank the same class first; where the second is
            a teacher, also known as the label loyalty of the first.
        kl: mean KL(second || first), in nats.
        probability_loyalty: one minus the root of the Jensen-Shannon divergence, mean, in [0, 1].
    """

    agreement: float
    kl: float
    probability_loyalty: float = NOTHING


def score(
    logits: Tensor, said: Predictions, bins: int, tags: Sequence[str] | None = None
) -> Scores:
    """The scores of one predictor; what torchmetrics has is torchmetrics' own.

    The calibration error is that of Guo et al., On Calibration of Modern Neural Networks (arXiv
    1706.04599), equation 3, on bins of equal width.

    Args:
        logits: (n, c) float32, of the predictor.
        said: the predictions to which they belong, for their targets.
        bins: of the calibration error.
        tags: names of the classes where entities are to be found.
    """
    known = said.target != UNLABELLED
    count, classes = int(known.sum()), logits.shape[-1]
    if count == 0:
        return Scores(NOTHING, NOTHING, NOTHING, 0)
    spans = None if tags is None else _span_f1(logits, said, tags)
    logits, target = logits[known], said.target[known]
    # Not the logits: torchmetrics takes those that happen to lie in [0, 1] for probabilities. And
    # nothing above ``SURE``: it would give a confidence of exactly 1 a bin of its own.
    sure = logits.softmax(-1).clamp(max=SURE)
    macro_f1 = NOTHING
    recall: tuple[float, ...] = ()
    if classes <= MOST_CLASSES:
        f1 = MulticlassF1Score(classes, average="macro", validate_args=False)
        macro_f1, recall = _value(f1, logits, target), _recall(logits, target)
    accuracy = MulticlassAccuracy(classes, average="micro", validate_args=False)
    ece = MulticlassCalibrationError(classes, n_bins=bins, norm="l1", validate_args=False)
    return Scores(
        accuracy=_value(accuracy, logits, target),
        nll=_value(NegativeLogLikelihood(), logits, target),
        ece=_value(ece, sure, target),
        n=count,
        span_f1=spans,
        macro_f1=macro_f1,
        brier=_value(Brier(), logits, target),
        recall=recall,
    )


def nearness(first: Tensor, second: Tensor) -> Nearness:
    """How near the logits (n, c) of a predictor are to those of its reference, the second."""
    return Nearness(
        agreement=_value(Agreement(), first, second),
        kl=_value(PredictiveKL(), first, second),
        probability_loyalty=_value(ProbabilityLoyalty(), first, second),
    )


def _value(metric: Metric, first: Tensor, second: Tensor) -> float:
    return float(_computed(metric, first, second))


def _computed(metric: Metric, first: Tensor, second: Tensor) -> Any:
    measured = whole(metric)
    measured.update(first, second)
    return measured.compute()


def _recall(logits: Tensor, target: Tensor) -> tuple[float, ...]:
    classes = logits.shape[-1]
    metric = MulticlassRecall(classes, average="none", validate_args=False)
    absent = target.bincount(minlength=classes) == 0
    return tuple(_computed(metric, logits, target).masked_fill(absent, torch.nan).tolist())


def _span_f1(logits: Tensor, said: Predictions, tags: Sequence[str]) -> float:
    metric = SpanF1(tags)
    guessed = by_sample(logits.argmax(-1), said.index, 0)
    target = by_sample(said.target, said.index, UNLABELLED)
    return float(_computed(metric, guessed, target)["f1"])
