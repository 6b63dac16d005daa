"""Attention maps, their sizes and their scale."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ensemble_kd.objectives import AttentionTransfer

Pair = Callable[..., tuple[Tensor, Tensor]]
Pooled = Callable[[list[list[float]], int, int], list[float]]
SHAPES: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((4, 6, 6), (5, 6, 6)),
    ((4, 6, 6), (5, 3, 4)),
    ((3, 3, 5), (4, 7, 4)),
    ((5, 4), (5, 7)),
]


def reference_attention(student: Tensor, teacher: Tensor, pooled: Pooled) -> list[float]:
    """Equation 2 with squares and their mean, F_sum^2 (its sum over the channels) as the map."""
    values = []
    for own, other in zip(student, teacher, strict=True):
        maps = []
        for feature in (own, other):
            if feature.ndim == 2:
                maps.append([[sum(float(a) ** 2 for a in token) for token in feature]])
                continue
            planes = feature.tolist()
            rows, columns = range(feature.shape[1]), range(feature.shape[2])
            maps.append([[sum(p[y][x] ** 2 for p in planes) for x in columns] for y in rows])
        height = min(len(plane) for plane in maps)
        width = min(len(plane[0]) for plane in maps)
        q, t = (pooled(plane, height, width) for plane in maps)
        long_q, long_t = (math.sqrt(sum(a * a for a in v)) for v in (q, t))
        squares = [(a / long_q - b / long_t) ** 2 for a, b in zip(q, t, strict=True)]
        values.append(sum(squares) / len(squares))
    return values


@pytest.mark.parametrize(("own", "other"), SHAPES)
@pytest.mark.parametrize("b", [1, 2, 5])
def test_it_is_the_papers_equation(
    pair: Pair, reference_pooled: Pooled, b: int, own: tuple[int, ...], other: tuple[int, ...]
) -> None:
    student, teacher = pair(b, own, other)
    values = AttentionTransfer().between(student, teacher)(student, teacher)
    assert values.shape == (b,)
    assert values.tolist() == pytest.approx(
        reference_attention(student, teacher, reference_pooled), abs=1e-12
    )


def test_the_order_of_channels_their_number_and_the_scale_do_not_count(pair: Pair) -> None:
    student, _ = pair(5, (4, 6, 6), (1,))
    same = 3 * torch.cat([student, -student], dim=1).flip(1)
    module = AttentionTransfer().between(student, same)
    assert module(student, same).tolist() == pytest.approx([0.0] * 5, abs=1e-15)


def test_attention_on_two_different_places_is_as_far_as_can_be() -> None:
    student, teacher = torch.zeros(1, 2, 1, 4), torch.zeros(1, 3, 1, 4)
    student[..., 0], teacher[..., 2] = 5.0, -2.0
    value = AttentionTransfer().between(student, teacher)(student, teacher)
    assert value.item() == pytest.approx(2 / 4)
