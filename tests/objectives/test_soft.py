from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from ensemble_kd.functional import Merge
from ensemble_kd.objectives import Soft
from ensemble_kd.schedules import Linear
from ensemble_kd.types import UNLABELLED, Batch, Output, Progress

PROGRESS = Progress(0, 0, 0.0)
MERGES: tuple[Merge, ...] = get_args(Merge)
SHAPES = [(4,), (2, 3)]


def said(
    seed: int, members: int, shape: tuple[int, ...], classes: int = 5
) -> tuple[Output, tuple[Output, ...], Tensor, Batch]:
    """Student, teachers, weights and batch, in float64."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(members + 1, *shape, classes, generator=generator, dtype=torch.float64)
    weights = torch.rand(members, *shape, generator=generator, dtype=torch.float64)
    batch = Batch(None, torch.full(shape, UNLABELLED), torch.arange(shape[0]))
    student = Output(logits[0].clone().requires_grad_())
    return student, tuple(Output(z) for z in logits[1:]), weights / weights.sum(0), batch


def reference_soft(
    student: Tensor, teachers: list[Tensor], weights: Tensor, temperature: float
) -> Tensor:
    """T^2 sum_k w_k KL_k, number by number, over samples in a row."""
    values = []
    for i, own in enumerate(student.tolist()):
        total = 0.0
        q = [math.exp(z / temperature) for z in own]
        for k, teacher in enumerate(teachers):
            p = [math.exp(z / temperature) for z in teacher[i].tolist()]
            for a, b in zip(p, q, strict=True):
                a, b = a / math.fsum(p), b / math.fsum(q)
                total += float(weights[k, i]) * a * math.log(a / b)
        values.append(temperature**2 * total)
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("members", [1, 3])
def test_it_is_the_definition(temperature: float, shape: tuple[int, ...], members: int) -> None:
    student, teachers, weights, batch = said(0, members, shape)
    got = Soft(temperature)(student, teachers, weights, batch, PROGRESS)
    want = reference_soft(
        student.logits.detach().flatten(0, -2),
        [teacher.logits.flatten(0, -2) for teacher in teachers],
        weights.flatten(1),
        temperature,
    )
    assert got.shape == shape
    torch.testing.assert_close(got.flatten(), want)


def test_its_batch_mean_is_what_torch_calls_batchmean() -> None:
    student, teachers, weights, batch = said(1, 1, (6,))
    got = Soft(3.0)(student, teachers, weights, batch, PROGRESS).mean()
    want = 9 * torch.nn.functional.kl_div(
        (student.logits / 3).log_softmax(-1),
        (teachers[0].logits / 3).softmax(-1),
        reduction="batchmean",
    )
    torch.testing.assert_close(got, want)


def test_class_mean_is_what_torch_calls_mean() -> None:
    student, teachers, weights, batch = said(1, 1, (6,))
    objective = Soft(3.0, kl_reduction="class_mean")
    got = objective(student, teachers, weights, batch, PROGRESS).mean()
    with pytest.warns(UserWarning, match="reduction: 'mean' divides"):
        want = 9 * torch.nn.functional.kl_div(
            (student.logits / 3).log_softmax(-1),
            (teachers[0].logits / 3).softmax(-1),
            reduction="mean",
        )
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("shape", SHAPES)
def test_one_teacher_is_plain_distillation(merge: Merge, shape: tuple[int, ...]) -> None:
    student, teachers, _, batch = said(2, 1, shape)
    weights = torch.ones(1, *shape, dtype=torch.float64)
    got = Soft(2.0, merge)(student, teachers, weights, batch, PROGRESS)
    want = Soft(2.0)(student, teachers, weights, batch, PROGRESS)
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("merge", MERGES)
def test_identical_teachers_are_one_teacher(merge: Merge) -> None:
    student, teachers, weights, batch = said(3, 3, (4,))
    same = (teachers[0],) * 3
    one = torch.ones(1, 4, dtype=torch.float64)
    objective = Soft(2.0, merge)
    many, single = (
        objective(student, same, weights, batch, PROGRESS),
        objective(student, same[:1], one, batch, PROGRESS),
    )
    torch.testing.assert_close(many, single)
    torch.testing.assert_close(
        torch.autograd.grad(many.sum(), student.logits),
        torch.autograd.grad(single.sum(), student.logits),
    )


@pytest.mark.parametrize("merge", MERGES)
def test_the_order_of_the_teachers_does_not_matter(merge: Merge) -> None:
    student, teachers, weights, batch = said(4, 3, (4,))
    order = [2, 0, 1]
    objective = Soft(2.0, merge)
    torch.testing.assert_close(
        objective(student, tuple(teachers[k] for k in order), weights[order], batch, PROGRESS),
        objective(student, teachers, weights, batch, PROGRESS),
    )


@pytest.mark.parametrize("merge", MERGES)
def test_who_receives_gradient(merge: Merge) -> None:
    """The student and the weights; the teachers never, even if they could."""
    student, teachers, weights, batch = said(5, 3, (4,))
    teachers = tuple(Output(teacher.logits.requires_grad_()) for teacher in teachers)
    weights.requires_grad_()
    torch.autograd.backward(Soft(2.0, merge)(student, teachers, weights, batch, PROGRESS).sum())
    assert student.logits.grad is not None
    assert student.logits.grad.abs().sum() > 0
    assert weights.grad is not None
    assert weights.grad.abs().sum() > 0
    assert all(teacher.logits.grad is None for teacher in teachers)


def test_the_gradient_keeps_its_size_over_temperatures() -> None:
    """T^2 is there so that label and soft term need no new balance for another temperature."""
    student, teachers, weights, batch = said(6, 1, (64,))
    sizes = []
    for temperature in (5.0, 20.0):
        values = Soft(temperature)(student, teachers, weights, batch, PROGRESS)
        sizes.append(torch.autograd.grad(values.sum(), student.logits)[0].norm().item())
    assert sizes[0] / sizes[1] == pytest.approx(1, abs=0.2)


def test_the_temperature_can_be_a_schedule() -> None:
    student, teachers, weights, batch = said(7, 2, (4,))
    objective = Soft(Linear(4.0, 1.0))
    for fraction, temperature in ((0.0, 4.0), (0.5, 2.5), (1.0, 1.0)):
        torch.testing.assert_close(
            objective(student, teachers, weights, batch, Progress(0, 0, fraction)),
            Soft(temperature)(student, teachers, weights, batch, PROGRESS),
        )


@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_saturated_logits_are_finite(merge: Merge, dtype: torch.dtype, temperature: float) -> None:
    own = torch.tensor([[1e4, -1e4, 0.0]], dtype=dtype, requires_grad=True)
    teachers = (
        Output(torch.tensor([[-1e4, 1e4, 0.0]], dtype=dtype)),
        Output(torch.tensor([[-1e4, -1e4, 1e4]], dtype=dtype)),
    )
    weights = torch.tensor([[0.5], [0.5]])
    batch = Batch(None, torch.tensor([0]), torch.tensor([0]))
    values = Soft(temperature, merge)(Output(own), teachers, weights, batch, PROGRESS)
    assert values.dtype == torch.float32
    assert values.isfinite().all()
    assert values.item() > 0
    assert torch.autograd.grad(values.sum(), own)[0].isfinite().all()


def test_what_it_needs() -> None:
    assert not Soft.needs_labels
    assert Soft.needs_teachers


@pytest.mark.parametrize("temperature", [0.0, -2.0, math.inf, math.nan])
def test_the_temperature_must_be_positive(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature must be a positive finite number, got"):
        Soft(temperature)


def test_unknown_choices_are_refused() -> None:
    with pytest.raises(
        ValueError, match="merge must be one of losses, probabilities, logits, got 'mean'"
    ):
        Soft(merge="mean")  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match="kl_reduction must be one of batch_mean, class_mean, got 'sum'"
    ):
        Soft(kl_reduction="sum")  # type: ignore[arg-type]


def test_no_teacher_is_refused() -> None:
    student, _, _, batch = said(8, 1, (4,))
    with pytest.raises(ValueError, match="at least one teacher, got none"):
        Soft()(student, (), torch.empty(0, 4), batch, PROGRESS)


def test_teachers_of_another_number_of_classes_are_refused() -> None:
    student, _, weights, batch = said(9, 1, (4,))
    other = (Output(torch.zeros(4, 6)),)
    with pytest.raises(ValueError, match=r"teacher 0 must have the student's shape \(4, 5\)"):
        Soft()(student, other, weights, batch, PROGRESS)


def test_weights_of_another_shape_are_refused() -> None:
    student, teachers, _, batch = said(10, 4, (4,))
    with pytest.raises(ValueError, match=r"\(teachers, samples\) \(4, 4\), got \(4,\)"):
        Soft()(student, teachers, torch.full((4,), 0.25), batch, PROGRESS)
