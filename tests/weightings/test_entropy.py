from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ensemble_kd.types import Output
from ensemble_kd.weightings import Entropy


def reference_entropy(logits: list[float]) -> float:
    powers = [math.exp(z) for z in logits]
    shares = [power / math.fsum(powers) for power in powers]
    return -math.fsum(p * math.log(p) for p in shares)


def reference_weights(teachers: list[Tensor]) -> Tensor:
    """(1 - H_k / sum H) / (m - 1), sample by sample."""
    rows = []
    for said in zip(*(teacher.tolist() for teacher in teachers), strict=True):
        entropies = [reference_entropy(logits) for logits in said]
        rows.append([(1 - h / math.fsum(entropies)) / (len(teachers) - 1) for h in entropies])
    return torch.tensor(rows, dtype=torch.float64).T


@pytest.mark.parametrize("members", [2, 3, 5])
def test_it_is_the_definition(situation: Callable[..., Any], members: int) -> None:
    given = situation(members=members, shape=(6,))
    want = reference_weights([teacher.logits for teacher in given[0]])
    torch.testing.assert_close(Entropy()(*given), want)


def test_published_scale(situation: Callable[..., Any]) -> None:
    """Without 1 / (m - 1) and with the loss divided by m they sum to (m - 1) / m."""
    given = situation(members=4)
    entropies = torch.tensor(
        [[reference_entropy(z) for z in teacher.logits.tolist()] for teacher in given[0]]
    ).double()
    published = (1 - entropies / entropies.sum(0)) / 4
    torch.testing.assert_close(Entropy()(*given) * 3 / 4, published, rtol=1e-5, atol=1e-6)


def test_the_surest_teacher_counts_most(situation: Callable[..., Any]) -> None:
    _, student, batch, progress = situation(classes=2)
    teachers = tuple(Output(torch.tensor([[z, 0.0]] * 4).double()) for z in (0.0, 1.0, 5.0))
    weights = Entropy()(teachers, student, batch, progress)
    assert (weights[0] < weights[1]).all()
    assert (weights[1] < weights[2]).all()


def test_teachers_without_entropy_share_equally(situation: Callable[..., Any]) -> None:
    _, student, batch, progress = situation(classes=2)
    teachers = tuple(Output(torch.tensor([[z, -z]] * 4).double()) for z in (1e4, -1e4, 1e4))
    weights = Entropy()(teachers, student, batch, progress)
    torch.testing.assert_close(weights, torch.full((3, 4), 1 / 3, dtype=torch.float64))
