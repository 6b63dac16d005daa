"""The patterns of channels over places."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ensemble_kd.objectives import Nst

Pair = Callable[..., tuple[Tensor, Tensor]]
Pooled = Callable[[list[list[float]], int, int], list[float]]
SHAPES: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((4, 6, 6), (5, 6, 6)),
    ((4, 6, 6), (5, 3, 4)),
    ((3, 3, 5), (4, 7, 4)),
    ((5, 4), (5, 7)),
]


def reference_channels(
    feature: Tensor, height: int, width: int, pooled: Pooled
) -> list[list[float]]:
    """The channels of one sample as vectors of unit length."""
    planes = feature.tolist() if feature.ndim == 3 else [[line] for line in feature.mT.tolist()]
    channels = [pooled(plane, height, width) for plane in planes]
    return [[a / math.hypot(*channel) for a in channel] for channel in channels]


def reference_mean_kernel(x: list[list[float]], y: list[list[float]]) -> float:
    total = 0.0
    for p in x:
        for q in y:
            total += sum(a * b for a, b in zip(p, q, strict=True)) ** 2
    return total / (len(x) * len(y))


def reference_nst(student: Tensor, teacher: Tensor, pooled: Pooled) -> list[float]:
    """Equation 5 with the polynomial kernel, d = 2 and c = 0."""
    if student.ndim == 4:
        height = min(student.shape[2], teacher.shape[2])
        width = min(student.shape[3], teacher.shape[3])
    else:
        height, width = 1, student.shape[1]
    values = []
    for own, other in zip(student, teacher, strict=True):
        s, t = (reference_channels(x, height, width, pooled) for x in (own, other))
        same = reference_mean_kernel(s, s) + reference_mean_kernel(t, t)
        values.append(same - 2 * reference_mean_kernel(s, t))
    return values


@pytest.mark.parametrize(("own", "other"), SHAPES)
@pytest.mark.parametrize("b", [1, 2, 5])
def test_it_is_the_papers_equation(
    pair: Pair, reference_pooled: Pooled, b: int, own: tuple[int, ...], other: tuple[int, ...]
) -> None:
    student, teacher = pair(b, own, other)
    values = Nst().between(student, teacher)(student, teacher)
    assert values.shape == (b,)
    assert values.tolist() == pytest.approx(
        reference_nst(student, teacher, reference_pooled), abs=1e-12
    )


def test_the_order_of_channels_their_number_and_their_scales_do_not_count(pair: Pair) -> None:
    student, _ = pair(5, (4, 6, 6), (1,))
    same = torch.cat([3 * student, -student], dim=1).flip(1)
    module = Nst().between(student, same)
    assert module(student, same).tolist() == pytest.approx([0.0] * 5, abs=1e-15)


def test_channels_on_different_places_by_hand() -> None:
    student, teacher = torch.zeros(1, 1, 1, 4), torch.zeros(1, 2, 1, 4)
    student[0, 0, 0, 0] = 5.0
    teacher[0, 0, 0, 1] = teacher[0, 1, 0, 2] = 2.0
    value = Nst().between(student, teacher)(student, teacher)
    assert value.item() == pytest.approx(1 + 0.5 - 0)
