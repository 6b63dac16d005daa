from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ensemble_kd.functional import (
    Merge,
    log_mean_probabilities,
    log_probabilities,
    mean_logits,
    merged_kl,
    stacked,
)
from ensemble_kd.types import Output

PROPERTY = settings(deadline=None, derandomize=True, max_examples=40)
MERGES: tuple[Merge, ...] = get_args(Merge)


def sample(
    seed: int, members: int, shape: tuple[int, ...], classes: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Teachers' logits, student's logits and weights in float64."""
    generator = torch.Generator().manual_seed(seed)
    teachers = 3 * torch.randn(members, *shape, classes, generator=generator, dtype=torch.float64)
    student = torch.randn(*shape, classes, generator=generator, dtype=torch.float64)
    weights = torch.rand(members, *shape, generator=generator, dtype=torch.float64)
    return teachers, student, weights / weights.sum(0)


def reference_softmax(logits: list[float], temperature: float) -> list[float]:
    powers = [math.exp(z / temperature) for z in logits]
    return [power / math.fsum(powers) for power in powers]


def reference_divergence(t: list[float], p: list[float]) -> float:
    return math.fsum(a * math.log(a / b) for a, b in zip(t, p, strict=True))


def reference_merged_kl(
    teachers: list[list[float]],
    student: list[float],
    weights: list[float],
    temperature: float,
    merge: Merge,
) -> float:
    """One sample, each way by its definition."""
    q = reference_softmax(student, temperature)
    said = [reference_softmax(z, temperature) for z in teachers]
    pairs = list(zip(weights, said, strict=True))
    if merge == "losses":
        return math.fsum(w * reference_divergence(p, q) for w, p in pairs)
    if merge == "probabilities":
        mean = [math.fsum(w * p[c] for w, p in pairs) for c in range(len(student))]
        return reference_divergence(mean, q)
    mean = [
        math.fsum(w * z[c] for w, z in zip(weights, teachers, strict=True))
        for c in range(len(student))
    ]
    return reference_divergence(reference_softmax(mean, temperature), q)


@pytest.mark.parametrize("merge", MERGES)
@PROPERTY
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(2, 6), st.floats(0.5, 8))
def test_merged_kl_is_the_definition(
    merge: Merge, seed: int, members: int, classes: int, temperature: float
) -> None:
    teachers, student, weights = sample(seed, members, (3,), classes)
    got = merged_kl(teachers, student, weights, temperature, merge)
    want = [
        reference_merged_kl(
            teachers[:, i].tolist(), student[i].tolist(), weights[:, i].tolist(), temperature, merge
        )
        for i in range(3)
    ]
    torch.testing.assert_close(got, torch.tensor(want, dtype=torch.float64), rtol=1e-9, atol=1e-12)


@PROPERTY
@given(st.integers(0, 10**6), st.integers(1, 4), st.floats(0.5, 8))
def test_losses_and_probabilities_have_one_gradient_for_the_student(
    seed: int, members: int, temperature: float
) -> None:
    teachers, student, weights = sample(seed, members, (2, 3), 5)
    student.requires_grad_()
    values = [merged_kl(teachers, student, weights, temperature, m).sum() for m in MERGES]
    by_losses, by_probabilities, by_logits = (
        torch.autograd.grad(value, student)[0] for value in values
    )
    torch.testing.assert_close(by_losses, by_probabilities, rtol=1e-9, atol=1e-12)
    if members > 1:
        assert values[0] > values[1]
        assert (by_losses - by_logits).abs().max() > 1e-4


def test_losses_and_probabilities_have_two_gradients_for_the_weights() -> None:
    teachers, student, weights = sample(0, 3, (4,), 5)
    weights.requires_grad_()
    by_losses, by_probabilities = (
        torch.autograd.grad(merged_kl(teachers, student, weights, 2.0, merge).sum(), weights)[0]
        for merge in MERGES[:2]
    )
    # Constants over the teachers do not matter: the weights sum to one.
    difference = by_losses - by_probabilities
    assert (difference - difference.mean(0)).abs().max() > 1e-2


@pytest.mark.parametrize("merge", MERGES)
def test_the_gradient_for_the_weights_is_the_numerical_one(merge: Merge) -> None:
    teachers, student, weights = sample(1, 3, (2,), 4)
    weights.requires_grad_()
    student.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z, w: merged_kl(teachers, z, w, 2.0, merge), (student, weights)
    )


@pytest.mark.parametrize("merge", MERGES)
def test_weights_that_sum_to_zero_silence_a_sample(merge: Merge) -> None:
    teachers, student, weights = sample(2, 3, (4,), 5)
    weights[:, 1] = 0
    student.requires_grad_()
    weights.requires_grad_()
    values = merged_kl(teachers, student, weights, 2.0, merge)
    assert values[1] == 0
    assert (values[[0, 2, 3]] > 0).all()
    torch.autograd.backward(values.sum())
    assert student.grad is not None
    assert weights.grad is not None
    assert (student.grad[1] == 0).all()
    assert (student.grad[[0, 2, 3]].abs().sum(-1) > 0).all()
    assert weights.grad.isfinite().all()


@pytest.mark.parametrize("merge", MERGES)
def test_weights_that_do_not_sum_to_one_scale_the_gradient(merge: Merge) -> None:
    teachers, student, weights = sample(3, 3, (4,), 5)
    student.requires_grad_()
    (whole,) = torch.autograd.grad(merged_kl(teachers, student, weights, 2.0, merge).sum(), student)
    (half,) = torch.autograd.grad(
        merged_kl(teachers, student, weights / 2, 2.0, merge).sum(), student
    )
    torch.testing.assert_close(half, whole / 2)


@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("temperature", [1.0, 20.0])
def test_saturated_teachers_are_finite(
    merge: Merge, dtype: torch.dtype, temperature: float
) -> None:
    rows = [[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0], [1e4, 1e4, -1e4]]
    teachers = torch.tensor(rows, dtype=dtype).unsqueeze(1).expand(3, 4, 3)
    student = torch.tensor([[-1e4, 1e4, 0.0]] * 4, dtype=dtype, requires_grad=True)
    columns = [[1.0, 0.0, 0.0], [0.0, 0.5, 0.5], [1 / 3, 1 / 3, 1 / 3], [1e-45, 1 - 1e-6, 1e-6]]
    weights = torch.tensor(columns).T.requires_grad_()
    values = merged_kl(teachers, student, weights, temperature, merge)
    assert values.isfinite().all()
    torch.autograd.backward(values.sum())
    assert student.grad is not None
    assert weights.grad is not None
    assert student.grad.isfinite().all()
    assert weights.grad.isfinite().all()


def test_a_silent_teacher_does_not_hide_another_that_is_sure() -> None:
    """log(0 * 1 + 1 * e^-2e4) is -2e4 and not -inf."""
    log_p = log_probabilities(torch.tensor([[[1e4, -1e4]], [[-1e4, 1e4]]]))
    got = log_mean_probabilities(log_p, torch.tensor([[0.0], [1.0]]))
    assert torch.equal(got, torch.tensor([[-2e4, 0.0]]))


def test_log_mean_probabilities_is_a_distribution() -> None:
    teachers, _, weights = sample(4, 3, (2, 5), 6)
    got = log_mean_probabilities(log_probabilities(teachers, 3.0), weights)
    want = (weights.unsqueeze(-1) * (teachers / 3).softmax(-1)).sum(0)
    torch.testing.assert_close(got.exp(), want)
    torch.testing.assert_close(got.exp().sum(-1), torch.ones(2, 5, dtype=torch.float64))


def test_mean_logits_by_hand() -> None:
    logits = torch.tensor([[[1.0, 0.0]], [[3.0, 4.0]]])
    assert torch.equal(mean_logits(logits, torch.tensor([[0.5], [0.5]])), torch.tensor([[2.0, 2]]))


def test_stacked_widens_and_detaches() -> None:
    teachers = [Output(torch.randn(4, 3, dtype=torch.bfloat16, requires_grad=True))] * 2
    got = stacked(teachers, Output(torch.zeros(4, 3)))
    assert got.shape == (2, 4, 3)
    assert got.dtype == torch.float32
    assert not got.requires_grad


def test_stacked_without_teachers() -> None:
    got = stacked([], Output(torch.zeros(4, 7, 3, dtype=torch.float16)))
    assert got.shape == (0, 4, 7, 3)
    assert got.dtype == torch.float32


def test_stacked_names_the_teacher_that_differs() -> None:
    teachers = [Output(torch.zeros(4, 3)), Output(torch.zeros(4, 5))]
    with pytest.raises(ValueError, match=r"teacher 1 .* shape \(4, 3\), got \(4, 5\)"):
        stacked(teachers, Output(torch.zeros(4, 3)))
