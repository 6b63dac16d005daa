"""Which samples are alike, in a batch of any size."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ensemble_kd.objectives import Similarity

Pair = Callable[..., tuple[Tensor, Tensor]]
SHAPES: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((4, 6, 6), (5, 3, 4)),
    ((4, 3, 3), (4, 3, 3)),
    ((4,), (6,)),
    ((3, 4), (5, 7)),
    ((2, 3, 3), (9,)),
]


def reference_likeness(feature: Tensor) -> list[list[float]]:
    rows = [sample.flatten().tolist() for sample in feature]
    products = [[sum(p * q for p, q in zip(x, y, strict=True)) for y in rows] for x in rows]
    return [[g / math.sqrt(sum(h * h for h in row)) for g in row] for row in products]


def reference_similarity(student: Tensor, teacher: Tensor) -> list[float]:
    """Equations 2 to 4, row by row."""
    own, other = reference_likeness(student), reference_likeness(teacher)
    b = len(own)
    return [sum((own[i][j] - other[i][j]) ** 2 for j in range(b)) / b for i in range(b)]


@pytest.mark.parametrize(("own", "other"), SHAPES)
@pytest.mark.parametrize("b", [1, 2, 5])
def test_it_is_the_papers_equation(
    pair: Pair, b: int, own: tuple[int, ...], other: tuple[int, ...]
) -> None:
    student, teacher = pair(b, own, other)
    values = Similarity().between(student, teacher)(student, teacher)
    assert values.shape == (b,)
    assert values.tolist() == pytest.approx(reference_similarity(student, teacher), abs=1e-12)


def test_the_mean_over_the_samples_is_the_published_loss(pair: Pair) -> None:
    student, teacher = pair(5, *SHAPES[0])
    matrices = [torch.tensor(reference_likeness(x)) for x in (student, teacher)]
    published = torch.linalg.matrix_norm(matrices[0] - matrices[1]).item() ** 2 / 5**2
    values = Similarity().between(student, teacher)(student, teacher)
    assert values.mean().item() == pytest.approx(published)


def test_two_samples_by_hand() -> None:
    student = torch.tensor([[1.0, 0.0], [0.0, 1.0]])  # not alike: rows (1, 0) and (0, 1)
    teacher = torch.tensor([[2.0], [2.0]])  # alike: rows (1, 1) / sqrt(2)
    values = Similarity().between(student, teacher)(student, teacher)
    one = ((1 - 0.5**0.5) ** 2 + 0.5) / 2
    assert values.tolist() == pytest.approx([one, one])
