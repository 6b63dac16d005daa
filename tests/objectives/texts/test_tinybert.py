"""TinyBERT: attention before the softmax, and states behind matrices."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ensemble_kd.objectives import Matched, TinyBertAttention, TinyBertStates
from ensemble_kd.types import Output, Progress

START = Progress(0, 0, 0.0)
Rows = list[list[float]]


def reference_attention(naive: Any, own: list[Rows], other: list[Rows], heads: int) -> float:
    total = 0.0
    for s, t in zip(naive.scores(own, heads), naive.scores(other, heads), strict=True):
        squares = [naive.squares(s[head], t[head]) for head in range(heads)]
        total += naive.mean([each for of_head in squares for each in of_head])
    return total


def times(row: list[float], matrix: Tensor) -> list[float]:
    """A row times a matrix W (own, other), given as PyTorch keeps it, (other, own)."""
    return [
        math.fsum(a * b for a, b in zip(row, column, strict=True)) for column in matrix.tolist()
    ]


def reference_states(
    naive: Any, own: list[Rows], other: list[Rows], matrices: list[Tensor]
) -> float:
    total = 0.0
    for layer, (mine, theirs) in enumerate(zip(own, other, strict=True)):
        through = [times(row, matrices[min(layer, 1)]) for row in mine]
        total += naive.mean(naive.squares(through, theirs))
    return total


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("widths", [(4, 4), (4, 6)], ids=str)
def test_attention_is_the_papers_equation(
    reading: Any, naive: Any, lengths: list[int], heads: int, layers: int, widths: tuple[int, int]
) -> None:
    case = reading.case(lengths, [widths[0]] * 2 * layers, [widths[1]] * 2 * layers)
    values = case.values(case.matched(TinyBertAttention(heads)))
    expected = [reference_attention(naive, own, other, heads) for own, other in case.rows()]
    assert values.tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("widths", [([4], [4]), ([3, 4], [5, 6]), ([4] * 4, [7] * 4)], ids=str)
def test_states_behind_matrices_are_the_papers_equation(
    reading: Any, naive: Any, lengths: list[int], widths: tuple[list[int], list[int]]
) -> None:
    case = reading.case(lengths, *widths)
    matched = case.matched(TinyBertStates())
    matrices = [parameter.detach() for parameter in matched.pairs.parameters()]
    assert len(matrices) == min(len(widths[0]), 2)
    expected = [reference_states(naive, own, other, matrices) for own, other in case.rows()]
    assert case.values(matched).tolist() == pytest.approx(expected, rel=1e-9)


def test_a_shift_of_the_keys_is_seen(reading: Any) -> None:
    case = reading.case([4, 2], [4, 4], [4, 4])
    query, key = (feature.detach() for feature in case.own)
    case.other, case.own = [query, key + 1.0], [query, key]
    assert (case.values(case.matched(TinyBertAttention(2))) > 1e-3).all()


def test_teachers_are_weighted_and_have_matrices_of_their_own(reading: Any) -> None:
    batch, states = reading.texts([5, 3]), reading.states
    student = Output(torch.zeros(2, 2), {"a": states(0, 2, 4), "b": states(1, 2, 4)})
    taught = tuple(
        Output(torch.zeros(2, 2), {"x": states(2 + k, 2, 3 + k), "y": states(5 + k, 2, 6 + k)})
        for k in range(2)
    )
    matched = Matched(TinyBertStates(), ["a", "b"], ["x", "y"])
    matched.meet(student, taught)
    matched.double()
    alone = []
    for number in range(2):
        weights = torch.zeros(2, 2, dtype=torch.float64)
        weights[number] = 1.0
        alone.append(matched(student, taught, weights, batch, START))
    weights = torch.tensor([[0.25, 1.0], [0.75, 0.0]], dtype=torch.float64)
    values = matched(student, taught, weights, batch, START)
    torch.testing.assert_close(values, weights[0] * alone[0] + weights[1] * alone[1])
    shapes = [tuple(parameter.shape) for parameter in matched.parameters()]
    assert shapes == [(3, 4), (6, 4), (4, 4), (7, 4)]


def tensor(*shape: int) -> Tensor:
    return torch.randn(2, *shape)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: TinyBertAttention(0), "heads must be >= 1, got 0"),
        (
            lambda: TinyBertAttention(2).across([tensor(3, 4)] * 3, [tensor(3, 4)] * 3),
            "layers must be named as query, key for each pair, .*got 3 of the student and 3",
        ),
        (
            lambda: TinyBertAttention(3).across([tensor(3, 4)] * 2, [tensor(3, 6)] * 2),
            r"heads must divide the width of all features, got 3 heads and a feature \(3, 4\)",
        ),
        (
            lambda: TinyBertStates().across([tensor(3, 4)], [tensor(5, 4)]),
            r"sequences \(l, d\) of one length, got \(3, 4\) of the student and \(5, 4\) of a",
        ),
        (
            lambda: TinyBertStates().across(
                [tensor(3, 2), tensor(3, 4), tensor(3, 5)], [tensor(3, 4)] * 3
            ),
            "share a matrix and must be of one width, got 4, 5 of the student and 4, 4 of a",
        ),
    ],
)
def test_bad_input_is_one_line(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        call()
    assert "\n" not in str(refusal.value)
