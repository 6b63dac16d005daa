"""The neighbours of each sample."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ensemble_kd.objectives import Pkt

Pair = Callable[..., tuple[Tensor, Tensor]]
SHAPES: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((4, 6, 6), (5, 3, 4)),
    ((4, 3, 3), (4, 3, 3)),
    ((4,), (6,)),
    ((3, 4), (5, 7)),
    ((2, 3, 3), (9,)),
]


def reference_neighbours(feature: Tensor) -> list[list[float]]:
    """The conditional probabilities of the cosine kernel; a sample is not its own neighbour."""
    x = [sample.flatten().tolist() for sample in feature]
    b = len(x)
    kernel = [[0.0] * b for _ in range(b)]
    for i in range(b):
        for j in range(b):
            product = sum(p * q for p, q in zip(x[i], x[j], strict=True))
            cosine = product / (math.hypot(*x[i]) * math.hypot(*x[j]))
            kernel[i][j] = 0.0 if i == j else (cosine + 1) / 2
    return [[k / sum(row) for k in row] if b > 1 else [0.0] for row in kernel]


def reference_pkt(student: Tensor, teacher: Tensor) -> list[float]:
    """For each sample, the sum over the others of p log(p / q)."""
    own, other = reference_neighbours(student), reference_neighbours(teacher)
    return [
        sum(p * math.log(p / q) for p, q in zip(t, s, strict=True) if p > 0)
        for s, t in zip(own, other, strict=True)
    ]


@pytest.mark.parametrize(("own", "other"), SHAPES)
@pytest.mark.parametrize("b", [1, 2, 5])
def test_it_is_the_papers_equation(
    pair: Pair, b: int, own: tuple[int, ...], other: tuple[int, ...]
) -> None:
    student, teacher = pair(b, own, other)
    values = Pkt().between(student, teacher)(student, teacher)
    assert values.shape == (b,)
    assert values.tolist() == pytest.approx(reference_pkt(student, teacher), abs=1e-12)


def test_three_samples_by_hand() -> None:
    student = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])  # of the first: 2/3 and 1/3
    teacher = torch.ones(3, 4)  # 1/2 and 1/2
    first, second, third = Pkt().between(student, teacher)(student, teacher).tolist()
    assert first == second == pytest.approx((math.log(3 / 4) + math.log(3 / 2)) / 2)
    assert third == pytest.approx(0.0, abs=1e-7)


def test_opposite_samples_are_almost_no_neighbours() -> None:
    student = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    teacher = torch.ones(3, 4)
    values = Pkt().between(student, teacher)(student, teacher)
    smallest = 1e-7 / (0.5 + 1e-7)
    expected = (math.log(0.5 / smallest) + math.log(0.5 / (1 - smallest))) / 2
    assert values[:2].tolist() == pytest.approx([expected, expected], rel=1e-5)
    values.sum().backward()
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()
