from __future__ import annotations

import math
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from ensemble_kd.objectives import MseLogits, ShrunkLogits, Soft
from ensemble_kd.objectives.mse_logits import LogitMerge
from ensemble_kd.objectives.shrunk_logits import LogitReduction
from ensemble_kd.types import UNLABELLED, Batch, Output, Progress

PROGRESS = Progress(0, 0, 0.0)
MERGES: tuple[LogitMerge, ...] = get_args(LogitMerge)
SHAPES = [(4,), (2, 3)]


def said(
    seed: int, members: int, shape: tuple[int, ...] = (4,), classes: int = 5
) -> tuple[Output, tuple[Output, ...], Tensor, Batch]:
    """Student, teachers, weights and batch, in float64."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(members + 1, *shape, classes, generator=generator, dtype=torch.float64)
    weights = torch.rand(members, *shape, generator=generator, dtype=torch.float64)
    batch = Batch(None, torch.full(shape, UNLABELLED), torch.arange(shape[0]))
    student = Output(logits[0].clone().requires_grad_())
    return student, tuple(Output(z) for z in logits[1:]), weights / weights.sum(0), batch


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


def test_its_batch_mean_is_what_torch_calls_mse() -> None:
    student, teachers, weights, batch = said(1, 1)
    got = MseLogits()(student, teachers, weights, batch, PROGRESS).mean()
    want = torch.nn.functional.mse_loss(student.logits, teachers[0].logits)
    torch.testing.assert_close(got, want)


def test_it_is_shrunk_logits_that_are_not_shrunk() -> None:
    voices = said(2, 3)
    torch.testing.assert_close(
        MseLogits(reduction="sum")(*voices, PROGRESS), ShrunkLogits(1)(*voices, PROGRESS)
    )


def test_losses_and_logits_pull_alike() -> None:
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


def test_kd_at_a_high_temperature_pulls_half_as_much() -> None:
    student, teachers, weights, batch = said(4, 1)
    centred = [Output(z.logits - z.logits.mean(-1, keepdim=True)) for z in (student, *teachers)]
    voices = (centred[0], tuple(centred[1:]), weights, batch, PROGRESS)
    (kd,) = torch.autograd.grad(Soft(1e4)(*voices).sum(), student.logits)
    (mse,) = torch.autograd.grad(MseLogits()(*voices).sum(), student.logits)
    torch.testing.assert_close(kd, mse / 2, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("merge", MERGES)
def test_who_receives_gradient(merge: LogitMerge) -> None:
    """The student and the weights; the teachers never, even if they could."""
    student, teachers, weights, batch = said(5, 3)
    teachers = tuple(Output(teacher.logits.requires_grad_()) for teacher in teachers)
    weights.requires_grad_()
    torch.autograd.backward(
        MseLogits(merge=merge)(student, teachers, weights, batch, PROGRESS).sum()
    )
    assert student.logits.grad is not None
    assert student.logits.grad.abs().sum() > 0
    assert weights.grad is not None
    assert weights.grad.abs().sum() > 0
    assert all(teacher.logits.grad is None for teacher in teachers)


@pytest.mark.parametrize("merge", MERGES)
def test_the_gradient_is_the_numerical_one(merge: LogitMerge) -> None:
    student, teachers, weights, batch = said(6, 2)
    weights.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z, w: MseLogits(merge=merge)(Output(z), teachers, w, batch, PROGRESS),
        (student.logits, weights),
    )


@pytest.mark.parametrize("merge", MERGES)
def test_a_sample_without_a_teacher_is_zero(merge: LogitMerge) -> None:
    student, teachers, weights, batch = said(7, 3)
    weights[:, 1] = 0
    values = MseLogits(merge=merge)(student, teachers, weights, batch, PROGRESS)
    assert values[1] == 0
    (gradient,) = torch.autograd.grad(values.sum(), student.logits)
    assert (gradient[1] == 0).all()
    assert (values[[0, 2, 3]] > 0).all()


@pytest.mark.parametrize("merge", MERGES)
def test_identical_teachers_are_one_teacher(merge: LogitMerge) -> None:
    student, teachers, weights, batch = said(8, 3)
    objective = MseLogits(merge=merge)
    one = torch.ones(1, 4, dtype=torch.float64)
    many = objective(student, teachers[:1] * 3, weights, batch, PROGRESS)
    single = objective(student, teachers[:1], one, batch, PROGRESS)
    torch.testing.assert_close(many, single)
    torch.testing.assert_close(
        torch.autograd.grad(many.sum(), student.logits),
        torch.autograd.grad(single.sum(), student.logits),
    )


@pytest.mark.parametrize("merge", MERGES)
def test_a_student_like_its_teachers_has_nothing_to_learn(merge: LogitMerge) -> None:
    student, _, weights, batch = said(9, 3)
    same = (Output(student.logits.detach()),) * 3
    values = MseLogits(merge=merge)(student, same, weights, batch, PROGRESS)
    (gradient,) = torch.autograd.grad(values.sum(), student.logits)
    torch.testing.assert_close(values, torch.zeros_like(values))
    torch.testing.assert_close(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_degenerate_logits_are_finite(
    merge: LogitMerge, dtype: torch.dtype, classes: int, batch_size: int
) -> None:
    """Every pair of sure, opposite and constant logits, alone and in a batch."""
    rows = [[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0], [0.0, 0.0, 0.0], [1e4, 1e4, -1e4]]
    weights = torch.full((2, batch_size), 0.5)
    for turn in range(4):
        for start in range(4):
            table = torch.tensor(rows, dtype=dtype)[:, :classes].roll(start, 0)
            own = table[:batch_size].clone().requires_grad_()
            teachers = tuple(Output(table.roll(turn * k, 0)[:batch_size]) for k in (1, 2))
            batch = Batch(None, torch.zeros(batch_size, dtype=torch.long), torch.arange(batch_size))
            values = MseLogits(merge=merge)(Output(own), teachers, weights, batch, PROGRESS)
            assert values.dtype == torch.float32
            assert values.isfinite().all()
            (gradient,) = torch.autograd.grad(values.sum(), own)
            assert gradient.dtype == dtype
            assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single_precision(dtype: torch.dtype) -> None:
    student, teachers, weights, batch = said(11, 3)
    low = tuple(Output(z.logits.to(dtype)) for z in (student, *teachers))
    high = tuple(Output(z.logits.float()) for z in low)
    values = MseLogits()(low[0], low[1:], weights.float(), batch, PROGRESS)
    assert values.dtype == torch.float32
    assert torch.equal(values, MseLogits()(high[0], high[1:], weights.float(), batch, PROGRESS))


def test_what_it_needs() -> None:
    assert MseLogits.needs_labels is False
    assert MseLogits.needs_teachers


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


def test_what_does_not_fit_is_refused() -> None:
    student, teachers, weights, batch = said(12, 2)
    with pytest.raises(ValueError, match="at least one teacher, got none"):
        MseLogits()(student, (), weights[:0], batch, PROGRESS)
    with pytest.raises(ValueError, match=r"teacher 0 must have the student's shape \(4, 5\)"):
        MseLogits()(student, (Output(torch.zeros(4, 6)),) * 2, weights, batch, PROGRESS)
    with pytest.raises(ValueError, match=r"\(teachers, samples\) \(2, 4\), got \(1, 4\)"):
        MseLogits()(student, teachers, weights[:1], batch, PROGRESS)
