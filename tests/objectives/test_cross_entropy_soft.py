from __future__ import annotations

import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch
from torch import Tensor

from ensemble_kd.functional import Merge
from ensemble_kd.objectives import CrossEntropySoft, Soft
from ensemble_kd.types import Batch, Output, Progress

Said = Callable[..., tuple[Output, tuple[Output, ...], Tensor, Batch]]
Case = tuple[tuple[Output, tuple[Output, ...], Tensor, Batch], float, Merge]
Compared = Callable[..., list[list[tuple[float, list[float], list[float]]]]]
Softmax = Callable[[list[float], float], list[float]]
PROGRESS = Progress(0, 0, 0.0)
MERGES: tuple[Merge, ...] = get_args(Merge)


def reference_cross_entropy(p: list[float], q: list[float]) -> float:
    return -math.fsum(a * math.log(b) for a, b in zip(p, q, strict=True))


def test_it_is_the_definition(case: Case, reference_compared: Compared) -> None:
    (student, teachers, weights, batch), temperature, merge = case
    got = CrossEntropySoft(temperature, merge)(student, teachers, weights, batch, PROGRESS)
    logits = [teacher.logits for teacher in teachers]
    samples = reference_compared(student.logits, logits, weights, temperature, merge)
    want = [
        temperature**2 * math.fsum(w * reference_cross_entropy(p, q) for w, p, q in sample)
        for sample in samples
    ]
    assert got.shape == batch.target.shape
    assert got.flatten().tolist() == pytest.approx(want, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("merge", MERGES)
def test_it_pulls_the_student_like_kd(said: Said, merge: Merge) -> None:
    said_by_all = said(1, 3)
    z = said_by_all[0].logits
    mine = CrossEntropySoft(3.0, merge)(*said_by_all, PROGRESS)
    kd = Soft(3.0, merge)(*said_by_all, PROGRESS)
    assert (mine > kd + 0.1).all()
    torch.testing.assert_close(torch.autograd.grad(mine.sum(), z), torch.autograd.grad(kd.sum(), z))


def test_it_exceeds_kd_by_the_entropy_of_the_teacher(
    said: Said, reference_softmax: Softmax
) -> None:
    student, teachers, _, batch = said(2, 1)
    one = torch.ones(1, 4, dtype=torch.float64)
    mine = CrossEntropySoft(3.0)(student, teachers, one, batch, PROGRESS)
    kd = Soft(3.0)(student, teachers, one, batch, PROGRESS)
    p = [reference_softmax(z, 3.0) for z in teachers[0].logits.tolist()]
    want = [9 * reference_cross_entropy(row, row) for row in p]
    assert (mine - kd).tolist() == pytest.approx(want)


def test_losses_and_probabilities_are_one_value(said: Said) -> None:
    voices = said(3, 3)
    torch.testing.assert_close(
        CrossEntropySoft(3.0, "losses")(*voices, PROGRESS),
        CrossEntropySoft(3.0, "probabilities")(*voices, PROGRESS),
    )


def test_a_student_like_its_teacher_is_at_the_minimum(said: Said) -> None:
    student, _, weights, batch = said(4, 1)
    same = (Output(student.logits.detach()),)
    values = CrossEntropySoft()(student, same, weights, batch, PROGRESS)
    (gradient,) = torch.autograd.grad(values.sum(), student.logits)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient))
