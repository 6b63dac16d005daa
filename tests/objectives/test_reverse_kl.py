from __future__ import annotations

import math
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from ensemble_kd.functional import Merge
from ensemble_kd.objectives import ReverseKl, Soft
from ensemble_kd.schedules import Linear
from ensemble_kd.types import UNLABELLED, Batch, Output, Progress

PROGRESS = Progress(0, 0, 0.0)
MERGES: tuple[Merge, ...] = get_args(Merge)
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


def reference_softmax(logits: list[float], temperature: float) -> list[float]:
    powers = [math.exp(z / temperature) for z in logits]
    return [power / math.fsum(powers) for power in powers]


def reference_targets(
    teachers: list[list[float]], weights: list[float], temperature: float, merge: Merge
) -> list[tuple[float, list[float]]]:
    """The distributions that one sample is compared with, each with its weight."""
    pairs = list(zip(weights, teachers, strict=True))
    classes = range(len(teachers[0]))
    if merge == "losses":
        return [(w, reference_softmax(z, temperature)) for w, z in pairs]
    if merge == "logits":
        mean = [math.fsum(w * z[c] for w, z in pairs) for c in classes]
        return [(1.0, reference_softmax(mean, temperature))]
    each = [(w, reference_softmax(z, temperature)) for w, z in pairs]
    return [(1.0, [math.fsum(w * p[c] for w, p in each) for c in classes])]


def reference_kl(p: list[float], q: list[float]) -> float:
    return math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_it_is_the_definition(
    merge: Merge, shape: tuple[int, ...], classes: int, members: int, temperature: float
) -> None:
    student, teachers, weights, batch = said(members, members, shape, classes)
    got = ReverseKl(temperature, merge)(student, teachers, weights, batch, PROGRESS)
    own = student.logits.detach().flatten(0, -2).tolist()
    taught = torch.stack([teacher.logits for teacher in teachers]).flatten(1, -2)
    shares = weights.flatten(1)
    want = []
    for i, z in enumerate(own):
        q = reference_softmax(z, temperature)
        targets = reference_targets(
            taught[:, i].tolist(), shares[:, i].tolist(), temperature, merge
        )
        want.append(temperature**2 * math.fsum(w * reference_kl(q, p) for w, p in targets))
    assert got.shape == shape
    assert got.flatten().tolist() == pytest.approx(want, rel=1e-9, abs=1e-12)


def test_it_is_kd_with_the_parts_exchanged() -> None:
    student, teachers, _, batch = said(1, 1)
    one = torch.ones(1, 4, dtype=torch.float64)
    mine = ReverseKl(3.0)(student, teachers, one, batch, PROGRESS)
    kd = Soft(3.0)(student, teachers, one, batch, PROGRESS)
    torch.testing.assert_close(mine, Soft(3.0)(teachers[0], (student,), one, batch, PROGRESS))
    assert ((mine - kd).abs() > 1e-3).all()


def test_losses_and_logits_pull_alike() -> None:
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


def test_a_class_that_both_rule_out_counts_for_nothing() -> None:
    own = torch.tensor([[1.0, 2.0, -math.inf]], requires_grad=True)
    taught = torch.tensor([[0.5, -1.0, -math.inf]])
    batch = Batch(None, torch.tensor([UNLABELLED]), torch.tensor([0]))
    voices = (torch.ones(1, 1), batch, PROGRESS)
    value = ReverseKl()(Output(own), (Output(taught),), *voices)
    plain = ReverseKl()(Output(own[:, :2]), (Output(taught[:, :2]),), *voices)
    torch.testing.assert_close(value, plain)
    assert torch.autograd.grad(value.sum(), own)[0].isfinite().all()


def test_the_gradient_keeps_its_size_over_temperatures() -> None:
    student, teachers, weights, batch = said(13, 1, (64,))
    sizes = []
    for temperature in (10.0, 40.0):
        values = ReverseKl(temperature=temperature)(student, teachers, weights, batch, PROGRESS)
        sizes.append(torch.autograd.grad(values.sum(), student.logits)[0].norm().item())
    assert sizes[0] / sizes[1] == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("merge", MERGES)
def test_who_receives_gradient(merge: Merge) -> None:
    """The student and the weights; the teachers never, even if they could."""
    student, teachers, weights, batch = said(5, 3)
    teachers = tuple(Output(teacher.logits.requires_grad_()) for teacher in teachers)
    weights.requires_grad_()
    torch.autograd.backward(
        ReverseKl(merge=merge)(student, teachers, weights, batch, PROGRESS).sum()
    )
    assert student.logits.grad is not None
    assert student.logits.grad.abs().sum() > 0
    assert weights.grad is not None
    assert weights.grad.abs().sum() > 0
    assert all(teacher.logits.grad is None for teacher in teachers)


@pytest.mark.parametrize("merge", MERGES)
def test_the_gradient_is_the_numerical_one(merge: Merge) -> None:
    student, teachers, weights, batch = said(6, 2)
    weights.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z, w: ReverseKl(merge=merge)(Output(z), teachers, w, batch, PROGRESS),
        (student.logits, weights),
    )


@pytest.mark.parametrize("merge", MERGES)
def test_a_sample_without_a_teacher_is_zero(merge: Merge) -> None:
    student, teachers, weights, batch = said(7, 3)
    weights[:, 1] = 0
    values = ReverseKl(merge=merge)(student, teachers, weights, batch, PROGRESS)
    assert values[1] == 0
    (gradient,) = torch.autograd.grad(values.sum(), student.logits)
    assert (gradient[1] == 0).all()
    assert (values[[0, 2, 3]] > 0).all()


@pytest.mark.parametrize("merge", MERGES)
def test_identical_teachers_are_one_teacher(merge: Merge) -> None:
    student, teachers, weights, batch = said(8, 3)
    objective = ReverseKl(merge=merge)
    one = torch.ones(1, 4, dtype=torch.float64)
    many = objective(student, teachers[:1] * 3, weights, batch, PROGRESS)
    single = objective(student, teachers[:1], one, batch, PROGRESS)
    torch.testing.assert_close(many, single)
    torch.testing.assert_close(
        torch.autograd.grad(many.sum(), student.logits),
        torch.autograd.grad(single.sum(), student.logits),
    )


@pytest.mark.parametrize("merge", MERGES)
def test_a_student_like_its_teachers_has_nothing_to_learn(merge: Merge) -> None:
    student, _, weights, batch = said(9, 3)
    same = (Output(student.logits.detach()),) * 3
    values = ReverseKl(merge=merge)(student, same, weights, batch, PROGRESS)
    (gradient,) = torch.autograd.grad(values.sum(), student.logits)
    torch.testing.assert_close(values, torch.zeros_like(values))
    torch.testing.assert_close(gradient, torch.zeros_like(gradient))


def test_the_temperature_can_be_a_schedule() -> None:
    student, teachers, weights, batch = said(10, 2)
    objective = ReverseKl(temperature=Linear(4.0, 1.0))
    for fraction, temperature in ((0.0, 4.0), (0.5, 2.5), (1.0, 1.0)):
        torch.testing.assert_close(
            objective(student, teachers, weights, batch, Progress(0, 0, fraction)),
            ReverseKl(temperature=temperature)(student, teachers, weights, batch, PROGRESS),
        )


@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_degenerate_logits_are_finite(
    merge: Merge, dtype: torch.dtype, classes: int, batch_size: int
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
            values = ReverseKl(merge=merge)(Output(own), teachers, weights, batch, PROGRESS)
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
    values = ReverseKl()(low[0], low[1:], weights.float(), batch, PROGRESS)
    assert values.dtype == torch.float32
    assert torch.equal(values, ReverseKl()(high[0], high[1:], weights.float(), batch, PROGRESS))


def test_what_it_needs() -> None:
    assert ReverseKl.needs_labels is False
    assert ReverseKl.needs_teachers


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": 0.0}, "temperature must be a positive finite number, got 0.0"),
        ({"temperature": math.nan}, "temperature must be a positive finite number, got nan"),
        ({"merge": "mean"}, "merge must be one of losses, probabilities, logits, got 'mean'"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ReverseKl(**arguments)


def test_what_does_not_fit_is_refused() -> None:
    student, teachers, weights, batch = said(12, 2)
    with pytest.raises(ValueError, match="at least one teacher, got none"):
        ReverseKl()(student, (), weights[:0], batch, PROGRESS)
    with pytest.raises(ValueError, match=r"teacher 0 must have the student's shape \(4, 5\)"):
        ReverseKl()(student, (Output(torch.zeros(4, 6)),) * 2, weights, batch, PROGRESS)
    with pytest.raises(ValueError, match=r"\(teachers, samples\) \(2, 4\), got \(1, 4\)"):
        ReverseKl()(student, teachers, weights[:1], batch, PROGRESS)
