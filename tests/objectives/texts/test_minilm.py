"""MiniLMv2: relations among queries, among keys and among values."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from ensemble_kd.objectives import Matched, MiniLm

Rows = list[list[float]]


def reference_relations(
    naive: Any, own: list[Rows], other: list[Rows], heads: int, weights: Sequence[float]
) -> float:
    total = 0.0
    for number, (mine, theirs) in enumerate(zip(own, other, strict=True)):
        apart = []
        for head in range(heads):
            s, t = (naive.part(vectors, head, heads) for vectors in (mine, theirs))
            relations = zip(naive.products(s, s), naive.products(t, t), strict=True)
            apart += [naive.kl_of_softmax(b, a) for a, b in relations]
        total += weights[number % 3] / sum(weights) * naive.mean(apart)
    return total


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("weights", [(1, 1, 1), (0.5, 0, 2)], ids=str)
@pytest.mark.parametrize("layers", [1, 2])
def test_relations_are_the_papers_equation(
    reading: Any,
    naive: Any,
    lengths: list[int],
    heads: int,
    weights: tuple[float, ...],
    layers: int,
) -> None:
    case = reading.case(lengths, [6] * 3 * layers, [3] * 3 * layers)
    values = case.values(case.matched(MiniLm(heads, weights)))
    expected = [
        reference_relations(naive, own, other, heads, weights) for own, other in case.rows()
    ]
    assert values.tolist() == pytest.approx(expected, rel=1e-9)


def tensor(*shape: int) -> Tensor:
    return torch.randn(2, *shape)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MiniLm(0), "heads must be >= 1, got 0"),
        (lambda: MiniLm(2, [1, 1]), r"weights must be three numbers >= 0, not all 0, got \[1, 1\]"),
        (lambda: MiniLm(2, [0, 0, 0]), "weights must be three numbers >= 0, not all 0"),
        (lambda: MiniLm(2, [1, -1, 1]), "weights must be three numbers >= 0, not all 0"),
        (lambda: MiniLm(2, [1, math.nan, 1]), "weights must be three numbers >= 0, not all 0"),
        (
            lambda: MiniLm(2).across([tensor(3, 4)] * 3, [tensor(3, 4)] * 6),
            "layers must be named as query, key, value for each pair, .*got 3 .* and 6 of a",
        ),
        (
            lambda: MiniLm(4).across([tensor(3, 4)] * 3, [tensor(3, 6)] * 3),
            r"heads must divide the width of all features, got 4 heads and a feature \(3, 6\)",
        ),
        (
            lambda: Matched(MiniLm(1), ["a"], ["a"], factors=[1.0]),
            "factors must be null where layers are compared jointly",
        ),
    ],
)
def test_bad_input_is_one_line(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        call()
    assert "\n" not in str(refusal.value)
