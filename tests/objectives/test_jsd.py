from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from ensemble_kd.functional import Merge
from ensemble_kd.objectives import Jsd, ReverseKl, Soft
from ensemble_kd.types import UNLABELLED, Batch, Output, Progress

Said = Callable[..., tuple[Output, tuple[Output, ...], Tensor, Batch]]
Case = tuple[tuple[Output, tuple[Output, ...], Tensor, Batch], float, Merge]
Compared = Callable[..., list[list[tuple[float, list[float], list[float]]]]]
PROGRESS = Progress(0, 0, 0.0)
MERGES: tuple[Merge, ...] = get_args(Merge)


def reference_kl(p: list[float], q: list[float]) -> float:
    return math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def reference_jsd(p: list[float], q: list[float], beta: float) -> float:
    m = [beta * a + (1 - beta) * b for a, b in zip(p, q, strict=True)]
    return beta * reference_kl(p, m) + (1 - beta) * reference_kl(q, m)


def test_it_is_the_definition(case: Case, reference_compared: Compared) -> None:
    (student, teachers, weights, batch), temperature, merge = case
    got = Jsd(0.3, temperature, merge)(student, teachers, weights, batch, PROGRESS)
    logits = [teacher.logits for teacher in teachers]
    samples = reference_compared(student.logits, logits, weights, temperature, merge)
    want = [
        temperature**2 * math.fsum(w * reference_jsd(p, q, 0.3) for w, p, q in sample)
        for sample in samples
    ]
    assert got.shape == batch.target.shape
    assert got.flatten().tolist() == pytest.approx(want, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("merge", MERGES)
def test_its_limits_are_the_two_directions_of_kl(said: Said, merge: Merge) -> None:
    student, teachers, weights, batch = said(1, 3)
    voices = (student, teachers, weights, batch, PROGRESS)
    small = 1e-6
    torch.testing.assert_close(
        Jsd(small, 2.0, merge)(*voices) / small, Soft(2.0, merge)(*voices), rtol=1e-4, atol=1e-6
    )
    torch.testing.assert_close(
        Jsd(1 - small, 2.0, merge)(*voices) / small,
        ReverseKl(2.0, merge)(*voices),
        rtol=1e-4,
        atol=1e-6,
    )


def test_a_half_is_symmetric(said: Said) -> None:
    student, teachers, _, batch = said(2, 1)
    one = torch.ones(1, 4, dtype=torch.float64)
    torch.testing.assert_close(
        Jsd()(student, teachers, one, batch, PROGRESS),
        Jsd()(teachers[0], (student,), one, batch, PROGRESS),
    )


def test_beta_is_the_share_of_the_teacher(said: Said) -> None:
    student, teachers, _, batch = said(3, 1)
    one = torch.ones(1, 4, dtype=torch.float64)
    torch.testing.assert_close(
        Jsd(0.2)(student, teachers, one, batch, PROGRESS),
        Jsd(0.8)(teachers[0], (student,), one, batch, PROGRESS),
    )


@pytest.mark.parametrize("beta", [0.01, 0.5, 0.9])
def test_it_is_bounded_by_the_entropy_of_beta(beta: float) -> None:
    sure, opposite = torch.tensor([[1e4, -1e4]]), torch.tensor([[-1e4, 1e4]])
    batch = Batch(None, torch.tensor([UNLABELLED]), torch.tensor([0]))
    got = Jsd(beta, 2.0)(Output(sure), (Output(opposite),), torch.ones(1, 1), batch, PROGRESS)
    bound = -beta * math.log(beta) - (1 - beta) * math.log(1 - beta)
    assert got.item() == pytest.approx(4 * bound, rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"beta": 0.0}, r"beta must be in \(0, 1\), got 0.0"),
        ({"beta": 1.0}, r"beta must be in \(0, 1\), got 1.0"),
        ({"beta": math.nan}, r"beta must be in \(0, 1\), got nan"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Jsd(**arguments)
