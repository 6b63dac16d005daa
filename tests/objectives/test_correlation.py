"""Kernel values between samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ensemble_kd.objectives import Correlation

Pair = Callable[..., tuple[Tensor, Tensor]]
SHAPES: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((4, 6, 6), (5, 3, 4)),
    ((4, 3, 3), (4, 3, 3)),
    ((4,), (6,)),
    ((3, 4), (5, 7)),
    ((2, 3, 3), (9,)),
]


def reference_kernel(feature: Tensor, gamma: float, order: int) -> list[list[float]]:
    """The Taylor form of the Gaussian kernel, term by term."""
    x = [sample.flatten().tolist() for sample in feature]
    x = [[a / math.hypot(*sample) for a in sample] for sample in x]
    kernel = [[0.0] * len(x) for _ in x]
    for i, one in enumerate(x):
        for j, two in enumerate(x):
            product = sum(p * q for p, q in zip(one, two, strict=True))
            for p in range(order + 1):
                factor = math.exp(-2 * gamma) * (2 * gamma) ** p / math.factorial(p)
                kernel[i][j] += factor * product**p
    return kernel


def reference_correlation(
    student: Tensor, teacher: Tensor, gamma: float, order: int
) -> list[float]:
    """|K_s - K_t|^2 / b^2, row by row and times b."""
    own, other = (reference_kernel(x, gamma, order) for x in (student, teacher))
    b = len(own)
    return [sum((own[i][j] - other[i][j]) ** 2 for j in range(b)) / b for i in range(b)]


@pytest.mark.parametrize(("own", "other"), SHAPES)
@pytest.mark.parametrize("b", [1, 2, 5])
@pytest.mark.parametrize(("gamma", "order"), [(0.4, 2), (2.0, 1), (0.1, 5)])
def test_it_is_the_papers_equation(
    pair: Pair, b: int, own: tuple[int, ...], other: tuple[int, ...], gamma: float, order: int
) -> None:
    student, teacher = pair(b, own, other)
    values = Correlation(gamma, order).between(student, teacher)(student, teacher)
    assert values.shape == (b,)
    expected = reference_correlation(student, teacher, gamma, order)
    assert values.tolist() == pytest.approx(expected, abs=1e-12)


def test_a_high_order_is_the_gaussian_kernel(pair: Pair) -> None:
    student, teacher = pair(5, (4,), (6,))
    units = [x / x.norm(dim=1, keepdim=True) for x in (student, teacher)]
    kernels = [torch.exp(-0.4 * torch.cdist(x, x).square()) for x in units]
    expected = (kernels[0] - kernels[1]).square().mean().item()
    values = Correlation(order=15).between(student, teacher)(student, teacher)
    assert values.mean().item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"gamma": 0.0}, "gamma must be a finite number > 0, got 0.0"),
        ({"gamma": math.inf}, "gamma must be a finite number > 0, got inf"),
        ({"order": 0}, "order must be >= 1, got 0"),
    ],
)
def test_arguments_out_of_range(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Correlation(**arguments)
