from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from ensemble_kd.schedules import Linear
from ensemble_kd.types import Output, Progress
from ensemble_kd.weightings import Gradient


def reference_gradients(
    teachers: tuple[Output, ...], student: Output, temperature: float
) -> Tensor:
    """A backward pass for each teacher: the mean gradient of its loss for the student's logits."""
    rows = []
    for teacher in teachers:
        logits = student.logits.detach().clone().requires_grad_()
        loss = temperature**2 * torch.nn.functional.kl_div(
            (logits / temperature).log_softmax(-1),
            (teacher.logits / temperature).softmax(-1),
            reduction="none",
        )
        (gradient,) = torch.autograd.grad(loss.sum(-1).sum(), logits)
        rows.append(gradient.flatten(0, -2).mean(0))
    return torch.stack(rows)


def reference_weights(gradients: Tensor, capacity: float) -> Tensor:
    """min |sum a g|^2 by a general solver, on vectors of about unit length."""
    g = (gradients / gradients.norm(dim=-1).mean()).numpy()
    count = len(g)
    found = minimize(
        lambda a: ((a @ g) ** 2).sum(),
        np.full(count, 1 / count),
        jac=lambda a: 2 * g @ (a @ g),
        bounds=[(0, capacity)] * count,
        constraints=[{"type": "eq", "fun": lambda a: a.sum() - 1, "jac": lambda a: np.ones(count)}],
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 500},
    )
    return torch.tensor(found.x, dtype=torch.float64)


@pytest.mark.parametrize("capacity", [0.4, 0.6, 1.0])
@pytest.mark.parametrize("shape", [(8,), (2, 4)])
@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_bounded_minimum_of_what_backward_passes_give(
    situation: Callable[..., Any], capacity: float, shape: tuple[int, ...], seed: int
) -> None:
    teachers, student, batch, progress = situation(seed, 4, shape, 6)
    weights = Gradient(capacity, 2.0)(teachers, student, batch, progress)
    assert torch.equal(
        weights, weights.flatten(1)[:, 0].view(4, *[1] * len(shape)).expand_as(weights)
    )
    want = reference_weights(reference_gradients(teachers, student, 2.0), capacity)
    torch.testing.assert_close(weights.flatten(1)[:, 0], want, rtol=1e-4, atol=1e-4)


def test_full_capacity_is_a_direction_that_serves_all(situation: Callable[..., Any]) -> None:
    """MGDA: the combined gradient has no negative product with any teacher's."""
    teachers, student, batch, progress = situation(members=3)
    weights = Gradient(1.0)(teachers, student, batch, progress)[:, 0]
    gradients = reference_gradients(teachers, student, 1.0)
    combined = weights @ gradients
    assert (gradients @ combined >= combined @ combined - 1e-8).all()


@pytest.mark.parametrize("members", [1, 2, 3])
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_the_least_capacity_is_uniform(
    situation: Callable[..., Any], members: int, share: float
) -> None:
    weights = Gradient(share / members)(*situation(members=members))
    torch.testing.assert_close(weights, torch.full((members, 4), 1 / members, dtype=torch.float64))


def test_a_student_that_equals_its_teachers_weighs_them_alike(
    situation: Callable[..., Any],
) -> None:
    _, student, batch, progress = situation()
    weights = Gradient()((student,) * 3, student, batch, progress)
    torch.testing.assert_close(weights, torch.full((3, 4), 1 / 3, dtype=torch.float64))


def test_the_temperature_can_be_a_schedule(situation: Callable[..., Any]) -> None:
    teachers, student, batch, _ = situation()
    end = Progress(9, 0, 1.0)
    got = Gradient(1.0, Linear(8.0, 3.0))(teachers, student, batch, end)
    assert torch.equal(got, Gradient(1.0, 3.0)(teachers, student, batch, end))
    assert not torch.allclose(got, Gradient(1.0, 8.0)(teachers, student, batch, end))


@pytest.mark.parametrize("capacity", [0.0, -1.0, 1.1, math.nan])
def test_the_capacity_must_be_a_share(capacity: float) -> None:
    with pytest.raises(ValueError, match=r"capacity must be in \(0, 1\], got"):
        Gradient(capacity)


def test_the_temperature_must_be_positive() -> None:
    with pytest.raises(ValueError, match="temperature must be a positive finite number, got 0"):
        Gradient(temperature=0)
