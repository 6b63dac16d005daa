from __future__ import annotations

import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch
from torch import Tensor

from ensemble_kd.functional import Merge
from ensemble_kd.objectives import Soft, Standardised
from ensemble_kd.types import Batch, Output, Progress

Said = Callable[..., tuple[Output, tuple[Output, ...], Tensor, Batch]]
Case = tuple[tuple[Output, tuple[Output, ...], Tensor, Batch], float, Merge]
Compared = Callable[..., list[list[tuple[float, list[float], list[float]]]]]
Softmax = Callable[[list[float], float], list[float]]
PROGRESS = Progress(0, 0, 0.0)
MERGES: tuple[Merge, ...] = get_args(Merge)


def reference_kl(p: list[float], q: list[float]) -> float:
    return math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def reference_z_score(logits: list[float]) -> list[float]:
    mean = math.fsum(logits) / len(logits)
    deviation = math.sqrt(math.fsum((z - mean) ** 2 for z in logits) / len(logits))
    return [(z - mean) / deviation for z in logits]


def test_it_is_the_definition(case: Case, reference_compared: Compared) -> None:
    (student, teachers, weights, batch), temperature, merge = case
    got = Standardised(temperature, merge)(student, teachers, weights, batch, PROGRESS)
    own, *taught = (
        torch.tensor(
            [reference_z_score(z) for z in output.logits.flatten(0, -2).tolist()],
            dtype=torch.float64,
        )
        for output in (student, *teachers)
    )
    samples = reference_compared(own, taught, weights, temperature, merge)
    want = [
        temperature**2 * math.fsum(w * reference_kl(p, q) for w, p, q in sample)
        for sample in samples
    ]
    assert got.shape == batch.target.shape
    assert got.flatten().tolist() == pytest.approx(want, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("factor", "shift"), [(1.0, 30.0), (0.01, 0.0), (200.0, -7.0)])
@pytest.mark.parametrize("merge", MERGES)
def test_the_range_of_the_logits_does_not_matter(
    said: Said, merge: Merge, factor: float, shift: float
) -> None:
    student, teachers, weights, batch = said(1, 3)
    objective = Standardised(2.0, merge)
    want = objective(student, teachers, weights, batch, PROGRESS)
    moved = Output(factor * student.logits + shift)
    torch.testing.assert_close(objective(moved, teachers, weights, batch, PROGRESS), want)
    others = (teachers[0], Output(factor * teachers[1].logits + shift), teachers[2])
    torch.testing.assert_close(objective(student, others, weights, batch, PROGRESS), want)


def test_the_factor_of_the_released_code_is_a_temperature(said: Said) -> None:
    """It divides by c - 1: torch's own standard deviation."""
    student, teachers, _, batch = said(2, 1)
    one = torch.ones(1, 4, dtype=torch.float64)
    theirs = [
        Output((z - z.mean(-1, keepdim=True)) / z.std(-1, keepdim=True))
        for z in (student.logits, teachers[0].logits)
    ]
    want = Soft(3.0)(theirs[0], (theirs[1],), one, batch, PROGRESS)
    mine = Standardised(3.0 * math.sqrt(5 / 4))(student, teachers, one, batch, PROGRESS)
    torch.testing.assert_close(mine / (5 / 4), want)


def test_two_classes_say_only_which_is_larger(said: Said, reference_softmax: Softmax) -> None:
    student, teachers, weights, batch = said(3, 1, (64,), classes=2)
    values = Standardised(2.0)(student, teachers, weights, batch, PROGRESS)
    agree = student.logits.argmax(-1) == teachers[0].logits.argmax(-1)
    p = reference_softmax([1.0, -1.0], 2.0)
    apart = 4 * reference_kl(p, p[::-1])
    torch.testing.assert_close(values[agree], torch.zeros_like(values[agree]))
    torch.testing.assert_close(values[~agree], torch.full_like(values[~agree], apart))
    (gradient,) = torch.autograd.grad(values.sum(), student.logits)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient))


def test_equal_logits_are_zeros_without_gradient(said: Said) -> None:
    own = torch.full((4, 5), 1e4 / 3, requires_grad=True)
    _, teachers, _, batch = said(4, 1)
    taught = (Output(teachers[0].logits.float()),)
    values = Standardised()(Output(own), taught, torch.ones(1, 4), batch, PROGRESS)
    zeros = Soft()(
        Output(torch.zeros(4, 5)),
        tuple(
            Output(torch.tensor([reference_z_score(z) for z in t.logits.tolist()])) for t in taught
        ),
        torch.ones(1, 4),
        batch,
        PROGRESS,
    )
    torch.testing.assert_close(values, zeros)
    assert torch.equal(torch.autograd.grad(values.sum(), own)[0], torch.zeros(4, 5))
