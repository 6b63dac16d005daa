"""The directions of states, token by token; what weights of tokens mean for a whole text."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from ensemble_kd.objectives import Cosine, Matched, Term
from ensemble_kd.types import UNLABELLED, Output, Progress

START = Progress(0, 0, 0.0)
Rows = list[list[float]]


def cosine(own: list[float], other: list[float]) -> float:
    product = math.fsum(a * b for a, b in zip(own, other, strict=True))
    return product / math.hypot(*own) / math.hypot(*other)


def reference_cosine(naive: Any, own: Rows, other: Rows) -> float:
    distances = [1 - cosine(s, t) for s, t in zip(own, other, strict=True)]
    mean: float = naive.mean(distances)
    return mean


@pytest.mark.parametrize("layers", [1, 3])
def test_directions_are_the_papers_equation(
    reading: Any, naive: Any, lengths: list[int], layers: int
) -> None:
    case = reading.case(lengths, [4] * layers, [4] * layers)
    values = case.values(case.matched(Cosine()))
    expected = [
        math.fsum(reference_cosine(naive, s, t) for s, t in zip(*rows, strict=True))
        for rows in case.rows()
    ]
    assert values.tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("with_places", [True, False])
def test_weights_of_tokens_are_averaged_over_the_places_of_a_sample(
    reading: Any, naive: Any, with_places: bool
) -> None:
    batch, states = reading.texts([5, 3]), reading.states
    places = torch.zeros(2, 5, dtype=torch.bool)
    places[0, [1, 3]] = True
    target = torch.full((2, 5), UNLABELLED)
    batch = batch._replace(target=target, places=places if with_places else None)
    student = Output(torch.zeros(2, 5, 2), {"a": states(0, 2, 4)})
    taught = tuple(Output(torch.zeros(2, 5, 2), {"a": states(1 + k, 2, 4)}) for k in range(2))
    weights = torch.rand(2, 2, 5, dtype=torch.float64)
    weights = weights / weights.sum(dim=0)
    matched = Matched(Cosine(), ["a"], ["a"])
    matched.meet(student, taught)
    values = matched(student, taught, weights, batch, START)
    counted = [[1, 3], list(range(5))] if with_places else [list(range(5))] * 2
    expected = []
    for i, length in enumerate([5, 3]):
        own = student.features["a"][i, :length].tolist()
        theirs = [teacher.features["a"][i, :length].tolist() for teacher in taught]
        distances = [reference_cosine(naive, own, each) for each in theirs]
        shares = [naive.mean([float(weights[k, i, p]) for p in counted[i]]) for k in range(2)]
        expected.append(sum(w * d for w, d in zip(shares, distances, strict=True)))
    assert values.tolist() == pytest.approx(expected)
    term = Term(matched)(student, taught, weights, batch, START)
    assert float(term) == pytest.approx(naive.mean(expected))


def test_vectors_are_refused() -> None:
    with pytest.raises(ValueError, match=r"sequences \(l, d\) of one length and") as refusal:
        Cosine().between(torch.randn(2, 4), torch.randn(2, 4))
    assert "\n" not in str(refusal.value)


def test_balancing_is_refused() -> None:
    message = "balance must be null for Cosine, which leaves padding out, got 'variance'"
    with pytest.raises(ValueError, match=message) as refusal:
        Matched(Cosine(), ["a"], ["a"], balance="variance")
    assert "\n" not in str(refusal.value)
