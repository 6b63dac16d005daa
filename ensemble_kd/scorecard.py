"""What a run's predictions say of teachers and of what passed from them to the student."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ensemble_kd.evaluation import Measured
from ensemble_kd.metrics import (
    ErrorInheritance,
    KnowledgeTransfer,
    OracleAccuracy,
    TeacherDiversity,
)
from ensemble_kd.metrics.whole import whole
from ensemble_kd.predictions import Predictions
from ensemble_kd.report.roles import ALONE, role


class Teachers(NamedTuple):
    """What several teachers are like, together, on one split.

    Attributes:
        disagreement: share of the samples that two of them name differently, mean over pairs.
        q_statistic: of Yule, whether they err on the same samples, mean over pairs, in [-1, 1].
        js_divergence: of their distributions, in bits, mean over samples.
        oracle_accuracy: share of the labelled samples that at least one of them gets right.
    """

    disagreement: float
    q_statistic: float
    js_divergence: float
    oracle_accuracy: float


class Transfer(NamedTuple):
    """What passed from the teachers to a learner, on one split.

    Attributes:
        error_inheritance: share of its errors in which it names the very class that they name.
        positive: of the samples that the teachers get right and the control does not, the share
            that it gets right; NaN for the control itself.
        positive_n: how many these are.
        negative: of the samples that the control gets right and the teachers do not, the share
            that it gets wrong; NaN for the control itself.
        negative_n: how many these are.
    """

    error_inheritance: float
    positive: float
    positive_n: int
    negative: float
    negative_n: int


def teachers_together(said: Predictions, names: Sequence[str]) -> Teachers:
    """What teachers are like together.

    Args:
        said: what was said of a split.
        names: of the teachers, two or more.
    """
    logits = torch.stack([said.logits[name] for name in names])
    diversity, oracle = whole(TeacherDiversity(len(names))), whole(OracleAccuracy())
    diversity.update(logits, said.target)
    oracle.update(logits, said.target)
    found = diversity.compute()
    return Teachers(
        disagreement=float(found["disagreement"]),
        q_statistic=float(found["q_statistic"]),
        js_divergence=float(found["js_divergence"]),
        oracle_accuracy=float(oracle.compute()),
    )


def transferred(
    said: Predictions, learners: Sequence[str], reference: str, control: str | None
) -> dict[str, Transfer]:
    """What passed to each learner.

    Args:
        said: what was said of a split.
        learners: their names.
        reference: the name of who taught them, the ensemble or a teacher.
        control: the name of who had no teacher; None where there is nobody.
    """
    taught = said.logits[reference]
    alone = None if control is None else said.logits[control]
    return {
        name: _transfer(said.logits[name], taught, alone if name != control else None, said.target)
        for name in learners
    }


def _transfer(learner: Tensor, taught: Tensor, alone: Tensor | None, target: Tensor) -> Transfer:
    inheritance = whole(ErrorInheritance())
    inheritance.update(learner, taught, target)
    shared = float(inheritance.compute())
    if alone is None:
        return Transfer(shared, float("nan"), 0, float("nan"), 0)
    transfer = whole(KnowledgeTransfer())
    transfer.update(learner, taught, alone, target)
    found = transfer.compute()
    return Transfer(
        error_inheritance=shared,
        positive=float(found["positive"]),
        positive_n=int(found["positive_n"]),
        negative=float(found["negative"]),
        negative_n=int(found["negative_n"]),
    )


class Card(NamedTuple):
    """All that was measured on one split."""

    measured: Measured
    teachers: Teachers | None
    transfer: dict[str, Transfer]


def scorecard(measured: Measured, teachers: Sequence[str]) -> Card:
    """Read the predictions of a split once more, for what lies between predictors.

    Args:
        measured: on the split.
        teachers: names of the frozen teachers; there may be none.
    """
    said = measured.predictions
    together = teachers_together(said, teachers) if len(teachers) > 1 else None
    if not teachers:
        return Card(measured, together, {})
    learners = [name for name in said.logits if role(name) in ("student", "control")]
    control = ALONE if ALONE in said.logits else None
    return Card(measured, together, transferred(said, learners, "ensemble", control))
