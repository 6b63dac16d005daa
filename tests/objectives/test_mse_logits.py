from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from ensemble_kd.objectives import MseLogits, ShrunkLogits, Soft
from ensemble_kd.objectives.mse_logits import LogitMerge
from ensemble_kd.objectives.shrunk_logits import LogitReduction
from ensemble_kd.types import Batch, Output, Progress

Said = Callable[..., tuple[Output, tuple[Output, ...], Tensor, Batch]]
PROGRESS = Progress(0, 0, 0.0)
MERGES: tuple[LogitMerge, ...] = get_args(LogitMerge)
SHAPES = [(4,), (2, 3)]


def reference_mse(
    own: list[float],
    teachers: list[list[float]],
    weights: list[float],
    merge: LogitMerge,
    reduction: LogitReduction,
) -> float:
    """One sample, class by class."""
    pairs = list(zip(weights, teachers, strict=True))
    total = 0.0
    for c, z in enumerate(own):
        if merge == "losses":
            total += math.fsum(w * (z - t[c]) ** 2 for w, t in pairs)
        else:
            total += (z - math.fsum(w * t[c] for w, t in pairs)) ** 2
    return total / len(own) if reduction == "class_mean" else total


@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("reduction", get_args(LogitReduction))
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("members", [1, 3])
def test_it_is_the_definition(
    said: Said,
    merge: LogitMerge,
    reduction: LogitReduction,
    shape: tuple[int, ...],
    classes: int,
    members: int,
) -> None:
    student, teachers, weights, batch = said(members, members, shape, classes)
    got = MseLogits(merge, reduction)(student, teachers, weights, batch, PROGRESS)
    own = student.logits.detach().flatten(0, -2).tolist()
    taught = torch.stack([teacher.logits for teacher in teachers]).flatten(1, -2)
    shares = weights.flatten(1)
    want = [
        reference_mse(z, taught[:, i].tolist(), shares[:, i].tolist(), merge, reduction)
        for i, z in enumerate(own)
    ]
    assert got.shape == shape
    assert got.flatten().tolist() == pytest.approx(want, rel=1e-9)


def test_its_batch_mean_is_what_torch_calls_mse(said: Said) -> None:
    student, teachers, weights, batch = said(1, 1)
    got = MseLogits()(student, teachers, weights, batch, PROGRESS).mean()
    want = torch.nn.functional.mse_loss(student.logits, teachers[0].logits)
    torch.testing.assert_close(got, want)


def test_it_is_shrunk_logits_that_are_not_shrunk(said: Said) -> None:
    voices = said(2, 3)
    torch.testing.assert_close(
        MseLogits(reduction="sum")(*voices, PROGRESS), ShrunkLogits(1)(*voices, PROGRESS)
    )


def test_losses_and_logits_pull_alike(said: Said) -> None:
    """Their difference is the variance of the teachers."""
    student, teachers, weights, batch = said(3, 3)
    voices = (student, teachers, weights, batch, PROGRESS)
    by_losses, by_logits = (MseLogits(merge)(*voices) for merge in MERGES)
    z = torch.stack([teacher.logits for teacher in teachers])
    w = weights.unsqueeze(-1)
    variance = (w * (z - (w * z).sum(0)).square()).sum(0).mean(-1)
    torch.testing.assert_close(by_losses - by_logits, variance)
    torch.testing.assert_close(
        torch.autograd.grad(by_losses.sum(), student.logits),
        torch.autograd.grad(by_logits.sum(), student.logits),
    )


def test_kd_at_a_high_temperature_pulls_half_as_much(said: Said) -> None:
    student, teachers, weights, batch = said(4, 1)
    centred = [Output(z.logits - z.logits.mean(-1, keepdim=True)) for z in (student, *teachers)]
    voices = (centred[0], tuple(centred[1:]), weights, batch, PROGRESS)
    (kd,) = torch.autograd.grad(Soft(1e4)(*voices).sum(), student.logits)
    (mse,) = torch.autograd.grad(MseLogits()(*voices).sum(), student.logits)
    torch.testing.assert_close(kd, mse / 2, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"merge": "probabilities"}, "merge must be one of losses, logits, got 'probabilities'"),
        ({"reduction": "mean"}, "reduction must be one of sum, class_mean, got 'mean'"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MseLogits(**arguments)
