"""The likelihood of a teacher's features, and the variances that are trained."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ensemble_kd.objectives import Vid

Pair = Callable[..., tuple[Tensor, Tensor]]
SHAPES: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((4, 6, 6), (5, 6, 6)),
    ((4, 6, 6), (5, 3, 4)),
    ((4, 3, 3), (4, 7, 5)),
    ((5, 4), (5, 7)),
    ((4, 6, 6), (9,)),
    ((4,), (6,)),
]


def reference_vid(mean: Tensor, unbounded: list[float], teacher: Tensor) -> list[float]:
    """The negative log-likelihood without its constant, value by value."""
    values = []
    for mu, t in zip(mean, teacher, strict=True):
        total, count = 0.0, 0
        for index in itertools.product(*(range(n) for n in t.shape)):
            channel = index[0] if t.ndim == 3 else index[-1]
            variance = math.log(1 + math.exp(unbounded[channel])) + 1e-5
            error = float(t[index]) - float(mu[index])
            total += math.log(math.sqrt(variance)) + error**2 / (2 * variance)
            count += 1
        values.append(total / count)
    return values


def reference_mean(module: Any, student: Tensor) -> Tensor:
    """Three layers, with a ReLU after the first and the second."""
    first, second, third = (part for part in module.mean if not isinstance(part, nn.ReLU))
    hidden = first(student) * (first(student) > 0)
    hidden = second(hidden) * (second(hidden) > 0)
    said: Tensor = third(hidden).detach()
    return said


@pytest.mark.parametrize(("own", "other"), SHAPES)
@pytest.mark.parametrize("b", [1, 2, 5])
def test_it_is_the_papers_equation(
    pair: Pair, b: int, own: tuple[int, ...], other: tuple[int, ...]
) -> None:
    student, teacher = pair(b, own, other)
    module: Any = Vid().between(student, teacher).double()
    with torch.no_grad():
        module.unbounded.copy_(torch.linspace(-3.0, 4.0, len(module.unbounded)))
    values = module(student, teacher)
    assert values.shape == (b,)
    expected = reference_vid(reference_mean(module, student), module.unbounded.tolist(), teacher)
    assert values.tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("variance", [1e-4, 0.5, 5.0, 200.0])
def test_every_channel_starts_from_the_same_variance(pair: Pair, variance: float) -> None:
    module: Any = Vid(variance).between(*pair(2, (4, 6, 6), (5, 3, 3)))
    assert module.variances().tolist() == pytest.approx([variance] * 5, rel=1e-3)


def test_a_perfect_prediction_leaves_half_the_logarithm_of_the_variance(pair: Pair) -> None:
    student, _ = pair(5, (4,), (4,))
    module: Any = Vid().between(student, student).double()
    module.mean = nn.Identity()
    assert module(student, student).tolist() == pytest.approx([math.log(5.0) / 2] * 5)


def test_trained_variances_become_the_mean_squared_errors(pair: Pair) -> None:
    student, teacher = pair(50, (4,), (3,))
    module: Any = Vid().between(student, teacher).double()
    teacher = teacher * torch.tensor([0.5, 1.0, 3.0])
    errors = (teacher - module.mean(student)).square().mean(dim=0).detach()
    optimizer = torch.optim.LBFGS([module.unbounded], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = module(student, teacher).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert module.variances().tolist() == pytest.approx(errors.tolist(), rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"variance": 0.0}, "variance must be a finite number > 1e-05, got 0.0"),
        ({"variance": math.inf}, "variance must be a finite number > 1e-05, got inf"),
    ],
)
def test_arguments_out_of_range(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Vid(**arguments)
