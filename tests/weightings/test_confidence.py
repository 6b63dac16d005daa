from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ensemble_kd.types import Output
from ensemble_kd.weightings import Confidence


def reference_weights(teachers: list[Tensor], target: list[int]) -> Tensor:
    """(1 - softmax_k(CE_k)) / (m - 1), sample by sample."""
    rows = []
    for i, label in enumerate(target):
        losses = []
        for teacher in teachers:
            logits = teacher[i].tolist()
            losses.append(math.log(math.fsum(math.exp(z) for z in logits)) - logits[label])
        powers = [math.exp(loss) for loss in losses]
        rows.append([(1 - p / math.fsum(powers)) / (len(teachers) - 1) for p in powers])
    return torch.tensor(rows, dtype=torch.float64).T


@pytest.mark.parametrize("members", [2, 3, 5])
def test_it_is_the_definition(situation: Callable[..., Any], members: int) -> None:
    given = situation(members=members, shape=(6,))
    want = reference_weights([teacher.logits for teacher in given[0]], given[2].target.tolist())
    torch.testing.assert_close(Confidence()(*given), want)


def test_tokens_are_samples(situation: Callable[..., Any]) -> None:
    given = situation(shape=(2, 3))
    want = reference_weights(
        [teacher.logits.flatten(0, 1) for teacher in given[0]], given[2].target.flatten().tolist()
    )
    torch.testing.assert_close(Confidence()(*given).flatten(1), want)


def test_the_teacher_that_is_right_counts_most(situation: Callable[..., Any]) -> None:
    _, student, batch, progress = situation(classes=3)
    batch = batch._replace(target=torch.tensor([0, 0, 2, 1]))
    teachers = tuple(Output(torch.tensor([row] * 4).double()) for row in ([1, 0, 0], [0, 0, 1]))
    weights = Confidence()(teachers, student, batch, progress)
    assert (weights[0] > weights[1]).tolist() == [True, True, False, False]
    assert weights[0, 3].item() == pytest.approx(0.5)
