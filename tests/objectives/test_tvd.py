from __future__ import annotations

import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch
from torch import Tensor

from ensemble_kd.functional import Merge
from ensemble_kd.objectives import Soft, Tvd
from ensemble_kd.types import UNLABELLED, Batch, Output, Progress

Said = Callable[..., tuple[Output, tuple[Output, ...], Tensor, Batch]]
Case = tuple[tuple[Output, tuple[Output, ...], Tensor, Batch], float, Merge]
Compared = Callable[..., list[list[tuple[float, list[float], list[float]]]]]
PROGRESS = Progress(0, 0, 0.0)
MERGES: tuple[Merge, ...] = get_args(Merge)


def reference_tvd(p: list[float], q: list[float]) -> float:
    """The largest difference that a set of classes can have in its probability."""
    return math.fsum(max(a - b, 0.0) for a, b in zip(p, q, strict=True))


def test_it_is_the_definition(case: Case, reference_compared: Compared) -> None:
    (student, teachers, weights, batch), temperature, merge = case
    got = Tvd(temperature, merge)(student, teachers, weights, batch, PROGRESS)
    logits = [teacher.logits for teacher in teachers]
    samples = reference_compared(student.logits, logits, weights, temperature, merge)
    want = [
        temperature * math.fsum(w * reference_tvd(p, q) for w, p, q in sample) for sample in samples
    ]
    assert got.shape == batch.target.shape
    assert got.flatten().tolist() == pytest.approx(want, rel=1e-9, abs=1e-12)


def test_it_is_symmetric(said: Said) -> None:
    student, teachers, _, batch = said(1, 1)
    one = torch.ones(1, 4, dtype=torch.float64)
    torch.testing.assert_close(
        Tvd()(student, teachers, one, batch, PROGRESS),
        Tvd()(teachers[0], (student,), one, batch, PROGRESS),
    )


def test_opposite_certainties_are_one_apart() -> None:
    sure, opposite = torch.tensor([[1e4, -1e4]]), torch.tensor([[-1e4, 1e4]])
    batch = Batch(None, torch.tensor([UNLABELLED]), torch.tensor([0]))
    got = Tvd(2.0)(Output(sure), (Output(opposite),), torch.ones(1, 1), batch, PROGRESS)
    assert got.item() == 2.0


def test_it_is_within_the_bound_of_pinsker(said: Said) -> None:
    student, teachers, _, batch = said(2, 1, (64,))
    voices = (student, teachers, torch.ones(1, 64, dtype=torch.float64), batch, PROGRESS)
    assert (Tvd(1.0)(*voices) <= (Soft(1.0)(*voices) / 2).sqrt()).all()


def test_the_merges_are_three_different_things(said: Said) -> None:
    voices = said(3, 3)
    pulls = [
        torch.autograd.grad(Tvd(2.0, merge)(*voices, PROGRESS).sum(), voices[0].logits)[0]
        for merge in MERGES
    ]
    assert (pulls[0] - pulls[1]).abs().max() > 1e-3
    assert (pulls[1] - pulls[2]).abs().max() > 1e-3
    by_losses, by_probabilities = (Tvd(2.0, merge)(*voices, PROGRESS) for merge in MERGES[:2])
    assert (by_losses >= by_probabilities).all()


@pytest.mark.parametrize("merge", MERGES)
def test_a_student_like_its_teachers_is_at_no_distance(said: Said, merge: Merge) -> None:
    student, _, weights, batch = said(9, 3)
    same = (Output(student.logits.detach()),) * 3
    values = Tvd(merge=merge)(student, same, weights, batch, PROGRESS)
    torch.testing.assert_close(values, torch.zeros_like(values))


def test_exactly_at_the_teacher_there_is_no_pull(said: Said) -> None:
    student, _, weights, batch = said(9, 1)
    values = Tvd()(student, (Output(student.logits.detach()),), weights, batch, PROGRESS)
    (gradient,) = torch.autograd.grad(values.sum(), student.logits)
    assert torch.equal(gradient, torch.zeros_like(gradient))
