"""Distances and angles between samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ensemble_kd.objectives import Rkd

Pair = Callable[..., tuple[Tensor, Tensor]]
SHAPES: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((4, 6, 6), (5, 3, 4)),
    ((4, 3, 3), (4, 3, 3)),
    ((4,), (6,)),
    ((3, 4), (5, 7)),
    ((2, 3, 3), (9,)),
]


def reference_huber(a: float, b: float) -> float:
    return (a - b) ** 2 / 2 if abs(a - b) <= 1 else abs(a - b) - 0.5


def reference_relations(feature: Tensor) -> tuple[list[list[float]], list[list[list[float]]]]:
    """Distances over their mean, and cosines by vertex; zero for what has no direction."""
    x = [sample.flatten().tolist() for sample in feature]
    b = len(x)
    far = [[math.dist(x[i], x[j]) for j in range(b)] for i in range(b)]
    positive = [d for row in far for d in row if d > 0]
    mean = sum(positive) / len(positive) if positive else 1.0
    cosines = [[[0.0] * b for _ in range(b)] for _ in range(b)]
    for i in range(b):
        for j in range(b):
            for k in range(b):
                if far[i][j] > 0 and far[i][k] > 0:
                    one = [p - q for p, q in zip(x[j], x[i], strict=True)]
                    two = [p - q for p, q in zip(x[k], x[i], strict=True)]
                    product = sum(p * q for p, q in zip(one, two, strict=True))
                    cosines[i][j][k] = product / (far[i][j] * far[i][k])
    return [[d / mean for d in row] for row in far], cosines


def reference_rkd(student: Tensor, teacher: Tensor, distance: float, angle: float) -> list[float]:
    """Equations 6 to 10 with means, by the sample at which a pair or an angle begins."""
    (far, cosines), (far_t, cosines_t) = reference_relations(student), reference_relations(teacher)
    b = len(far)
    values = []
    for i in range(b):
        pairs = [reference_huber(far[i][j], far_t[i][j]) for j in range(b)]
        angles = [
            reference_huber(cosines[i][j][k], cosines_t[i][j][k])
            for j in range(b)
            for k in range(b)
        ]
        values.append(distance * sum(pairs) / b + angle * sum(angles) / b**2)
    return values


@pytest.mark.parametrize(("own", "other"), SHAPES)
@pytest.mark.parametrize("b", [1, 2, 5])
@pytest.mark.parametrize(("distance", "angle"), [(25.0, 50.0), (1.0, 0.0), (0.0, 2.0)])
def test_it_is_the_papers_equation(
    pair: Pair, b: int, own: tuple[int, ...], other: tuple[int, ...], distance: float, angle: float
) -> None:
    student, teacher = pair(b, own, other)
    values = Rkd(distance, angle).between(student, teacher)(student, teacher)
    assert values.shape == (b,)
    expected = reference_rkd(student, teacher, distance, angle)
    assert values.tolist() == pytest.approx(expected, abs=1e-12)


def test_a_difference_of_more_than_one_counts_linearly() -> None:
    # Three samples in a cluster and one far away, against four at equal steps.
    student = torch.tensor([[0.0], [0.01], [0.02], [9.0]], dtype=torch.float64)
    teacher = torch.tensor([[0.0], [1.0], [2.0], [3.0]], dtype=torch.float64)
    far, far_t = (reference_relations(x)[0] for x in (student, teacher))
    assert abs(far[3][2] - far_t[3][2]) > 1.0
    values = Rkd().between(student, teacher)(student, teacher)
    assert values.tolist() == pytest.approx(reference_rkd(student, teacher, 25.0, 50.0))


def test_a_shifted_rotated_and_scaled_copy_is_as_good_as_the_feature(pair: Pair) -> None:
    student, other = pair(5, (7,), (7, 7))
    rotation, _ = torch.linalg.qr(other[0])
    module = Rkd().between(student, student)
    moved = 1e-3 * student @ rotation + 2.0
    assert module(student, moved).tolist() == pytest.approx([0.0] * 5, abs=1e-12)
    assert (module(student, other.flatten(1)[:5]) > 0.1).all()


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_a_batch_in_one_place_has_distances_of_zero(pair: Pair, scale: float) -> None:
    student, teacher = pair(5, (7,), (7,))
    collapsed = (scale * student[:1]).expand(5, 7)
    values = Rkd().between(student, teacher)(collapsed, teacher)
    assert values.tolist() == pytest.approx(reference_rkd(collapsed, teacher, 25.0, 50.0))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"distance": -1.0}, "distance must be a finite number >= 0, got -1.0"),
        ({"angle": math.nan}, "angle must be a finite number >= 0, got nan"),
    ],
)
def test_arguments_out_of_range(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Rkd(**arguments)
