from __future__ import annotations

import math
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from ensemble_kd.functional import Merge
from ensemble_kd.objectives import Soft, Standardised
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


def reference_z_score(logits: list[float]) -> list[float]:
    mean = math.fsum(logits) / len(logits)
    deviation = math.sqrt(math.fsum((z - mean) ** 2 for z in logits) / len(logits))
    return [(z - mean) / deviation for z in logits]


@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_it_is_the_definition(
    merge: Merge, shape: tuple[int, ...], classes: int, members: int, temperature: float
) -> None:
    student, teachers, weights, batch = said(members, members, shape, classes)
    got = Standardised(temperature, merge)(student, teachers, weights, batch, PROGRESS)
    own = student.logits.detach().flatten(0, -2).tolist()
    taught = torch.stack([teacher.logits for teacher in teachers]).flatten(1, -2)
    shares = weights.flatten(1)
    want = []
    for i, z in enumerate(own):
        q = reference_softmax(reference_z_score(z), temperature)
        scores = [reference_z_score(t) for t in taught[:, i].tolist()]
        targets = reference_targets(scores, shares[:, i].tolist(), temperature, merge)
        want.append(temperature**2 * math.fsum(w * reference_kl(p, q) for w, p in targets))
    assert got.shape == shape
    assert got.flatten().tolist() == pytest.approx(want, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("factor", "shift"), [(1.0, 30.0), (0.01, 0.0), (200.0, -7.0)])
@pytest.mark.parametrize("merge", MERGES)
def test_the_range_of_the_logits_does_not_matter(merge: Merge, factor: float, shift: float) -> None:
    student, teachers, weights, batch = said(1, 3)
    objective = Standardised(2.0, merge)
    want = objective(student, teachers, weights, batch, PROGRESS)
    moved = Output(factor * student.logits + shift)
    torch.testing.assert_close(objective(moved, teachers, weights, batch, PROGRESS), want)
    others = (teachers[0], Output(factor * teachers[1].logits + shift), teachers[2])
    torch.testing.assert_close(objective(student, others, weights, batch, PROGRESS), want)


def test_the_factor_of_the_released_code_is_a_temperature() -> None:
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


def test_two_classes_say_only_which_is_larger() -> None:
    student, teachers, weights, batch = said(3, 1, (64,), classes=2)
    values = Standardised(2.0)(student, teachers, weights, batch, PROGRESS)
    agree = student.logits.argmax(-1) == teachers[0].logits.argmax(-1)
    p = reference_softmax([1.0, -1.0], 2.0)
    apart = 4 * reference_kl(p, p[::-1])
    torch.testing.assert_close(values[agree], torch.zeros_like(values[agree]))
    torch.testing.assert_close(values[~agree], torch.full_like(values[~agree], apart))
    (gradient,) = torch.autograd.grad(values.sum(), student.logits)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient))


def test_equal_logits_are_zeros_without_gradient() -> None:
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


@pytest.mark.parametrize("merge", MERGES)
def test_who_receives_gradient(merge: Merge) -> None:
    """The student and the weights; the teachers never, even if they could."""
    student, teachers, weights, batch = said(5, 3)
    teachers = tuple(Output(teacher.logits.requires_grad_()) for teacher in teachers)
    weights.requires_grad_()
    torch.autograd.backward(
        Standardised(merge=merge)(student, teachers, weights, batch, PROGRESS).sum()
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
        lambda z, w: Standardised(merge=merge)(Output(z), teachers, w, batch, PROGRESS),
        (student.logits, weights),
    )


@pytest.mark.parametrize("merge", MERGES)
def test_a_sample_without_a_teacher_is_zero(merge: Merge) -> None:
    student, teachers, weights, batch = said(7, 3)
    weights[:, 1] = 0
    values = Standardised(merge=merge)(student, teachers, weights, batch, PROGRESS)
    assert values[1] == 0
    (gradient,) = torch.autograd.grad(values.sum(), student.logits)
    assert (gradient[1] == 0).all()
    assert (values[[0, 2, 3]] > 0).all()


@pytest.mark.parametrize("merge", MERGES)
def test_identical_teachers_are_one_teacher(merge: Merge) -> None:
    student, teachers, weights, batch = said(8, 3)
    objective = Standardised(merge=merge)
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
    values = Standardised(merge=merge)(student, same, weights, batch, PROGRESS)
    (gradient,) = torch.autograd.grad(values.sum(), student.logits)
    torch.testing.assert_close(values, torch.zeros_like(values))
    torch.testing.assert_close(gradient, torch.zeros_like(gradient))


def test_the_temperature_can_be_a_schedule() -> None:
    student, teachers, weights, batch = said(10, 2)
    objective = Standardised(temperature=Linear(4.0, 1.0))
    for fraction, temperature in ((0.0, 4.0), (0.5, 2.5), (1.0, 1.0)):
        torch.testing.assert_close(
            objective(student, teachers, weights, batch, Progress(0, 0, fraction)),
            Standardised(temperature=temperature)(student, teachers, weights, batch, PROGRESS),
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
            values = Standardised(merge=merge)(Output(own), teachers, weights, batch, PROGRESS)
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
    values = Standardised()(low[0], low[1:], weights.float(), batch, PROGRESS)
    assert values.dtype == torch.float32
    assert torch.equal(values, Standardised()(high[0], high[1:], weights.float(), batch, PROGRESS))


def test_what_it_needs() -> None:
    assert Standardised.needs_labels is False
    assert Standardised.needs_teachers


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
        Standardised(**arguments)


def test_what_does_not_fit_is_refused() -> None:
    student, teachers, weights, batch = said(12, 2)
    with pytest.raises(ValueError, match="at least one teacher, got none"):
        Standardised()(student, (), weights[:0], batch, PROGRESS)
    with pytest.raises(ValueError, match=r"teacher 0 must have the student's shape \(4, 5\)"):
        Standardised()(student, (Output(torch.zeros(4, 6)),) * 2, weights, batch, PROGRESS)
    with pytest.raises(ValueError, match=r"\(teachers, samples\) \(2, 4\), got \(1, 4\)"):
        Standardised()(student, teachers, weights[:1], batch, PROGRESS)
