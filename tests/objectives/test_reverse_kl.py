from __future__ import annotations

import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch
from torch import Tensor

from ensemble_kd.functional import Merge
from ensemble_kd.objectives import ReverseKl, Soft
from ensemble_kd.types import UNLABELLED, Batch, Output, Progress

Said = Callable[..., tuple[Output, tuple[Output, ...], Tensor, Batch]]
Case = tuple[tuple[Output, tuple[Output, ...], Tensor, Batch], float, Merge]
Compared = Callable[..., list[list[tuple[float, list[float], list[float]]]]]
PROGRESS = Progress(0, 0, 0.0)
MERGES: tuple[Merge, ...] = get_args(Merge)


def reference_kl(p: list[float], q: list[float]) -> float:
    return math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def test_it_is_the_definition(case: Case, reference_compared: Compared) -> None:
    (student, teachers, weights, batch), temperature, merge = case
    got = ReverseKl(temperature, merge)(student, teachers, weights, batch, PROGRESS)
    logits = [teacher.logits for teacher in teachers]
    samples = reference_compared(student.logits, logits, weights, temperature, merge)
    want = [
        temperature**2 * math.fsum(w * reference_kl(q, p) for w, p, q in sample)
        for sample in samples
    ]
    assert got.shape == batch.target.shape
    assert got.flatten().tolist() == pytest.approx(want, rel=1e-9, abs=1e-12)


def test_it_is_kd_with_the_parts_exchanged(said: Said) -> None:
    student, teachers, _, batch = said(1, 1)
    one = torch.ones(1, 4, dtype=torch.float64)
    mine = ReverseKl(3.0)(student, teachers, one, batch, PROGRESS)
    kd = Soft(3.0)(student, teachers, one, batch, PROGRESS)
    torch.testing.assert_close(mine, Soft(3.0)(teachers[0], (student,), one, batch, PROGRESS))
    assert ((mine - kd).abs() > 1e-3).all()


def test_losses_and_logits_pull_alike(said: Said) -> None:
    """Their difference is the logarithm of a normaliser in which the student does not occur."""
    voices = said(2, 3)
    values = [ReverseKl(2.0, merge)(*voices, PROGRESS) for merge in MERGES]
    by_losses, by_probabilities, by_logits = (
        torch.autograd.grad(value.sum(), voices[0].logits)[0] for value in values
    )
    torch.testing.assert_close(by_losses, by_logits)
    assert (values[0] > values[2]).all()
    assert (by_losses - by_probabilities).abs().max() > 1e-3


def test_it_forgives_what_is_left_out_and_not_what_is_added() -> None:
    both, first = torch.tensor([[4.0, 4.0, -4.0]]), torch.tensor([[8.0, -4.0, -4.0]])
    batch = Batch(None, torch.tensor([UNLABELLED]), torch.tensor([0]))
    one = torch.ones(1, 1)
    left_out = ReverseKl(1.0)(Output(first), (Output(both),), one, batch, PROGRESS)
    added = ReverseKl(1.0)(Output(both), (Output(first),), one, batch, PROGRESS)
    assert left_out.item() == pytest.approx(math.log(2), abs=1e-3)
    assert added > 5
