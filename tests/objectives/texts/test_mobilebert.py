"""MobileBERT: the attention of each head and token, and the states between the blocks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ensemble_kd.objectives import MobileBertAttention, MobileBertStates

Rows = list[list[float]]


def reference_attention(naive: Any, own: list[Rows], other: list[Rows], heads: int) -> float:
    total = 0.0
    for s, t in zip(naive.scores(own, heads), naive.scores(other, heads), strict=True):
        apart = [
            naive.kl_of_softmax(theirs, mine)
            for head in range(heads)
            for mine, theirs in zip(s[head], t[head], strict=True)
        ]
        total += naive.mean(apart)
    return total


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("widths", [(4, 4), (4, 6)], ids=str)
def test_attention_is_the_papers_equation(
    reading: Any, naive: Any, lengths: list[int], heads: int, layers: int, widths: tuple[int, int]
) -> None:
    case = reading.case(lengths, [widths[0]] * 2 * layers, [widths[1]] * 2 * layers)
    values = case.values(case.matched(MobileBertAttention(heads)))
    expected = [reference_attention(naive, own, other, heads) for own, other in case.rows()]
    assert values.tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("layers", [1, 3])
def test_states_are_the_papers_equation(
    reading: Any, naive: Any, lengths: list[int], layers: int
) -> None:
    case = reading.case(lengths, [4] * layers, [4] * layers)
    values = case.values(case.matched(MobileBertStates()))
    expected = [
        math.fsum(naive.mean(naive.squares(s, t)) for s, t in zip(*rows, strict=True))
        for rows in case.rows()
    ]
    assert values.tolist() == pytest.approx(expected, rel=1e-9)


def test_a_shift_of_the_keys_is_not_seen_behind_the_softmax(reading: Any) -> None:
    case = reading.case([4, 2], [4, 4], [4, 4])
    query, key = (feature.detach() for feature in case.own)
    case.other, case.own = [query, key + 1.0], [query, key]
    assert case.values(case.matched(MobileBertAttention(2))).tolist() == pytest.approx([0, 0])


def tensor(*shape: int) -> Tensor:
    return torch.randn(2, *shape)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MobileBertAttention(-1), "heads must be >= 1, got -1"),
        (
            lambda: MobileBertAttention(2).across([tensor(3, 4)] * 3, [tensor(3, 4)] * 3),
            "layers must be named as query, key for each pair, .*got 3 of the student and 3",
        ),
        (
            lambda: MobileBertAttention(3).across([tensor(3, 4)] * 2, [tensor(3, 6)] * 2),
            r"heads must divide the width of all features, got 3 heads and a feature \(3, 4\)",
        ),
        (
            lambda: MobileBertStates().between(tensor(3, 4), tensor(3, 5)),
            r"sequences \(l, d\) of one length and width, got \(3, 4\) .* and \(3, 5\)",
        ),
    ],
)
def test_bad_input_is_one_line(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        call()
    assert "\n" not in str(refusal.value)
