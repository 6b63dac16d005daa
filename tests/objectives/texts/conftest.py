"""Texts of several lengths, features at their tokens, and the arithmetic of the equations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from ensemble_kd.objectives import Matched
from ensemble_kd.objectives.comparison import Comparison, JointComparison
from ensemble_kd.types import Batch, Output, Progress, Tokens

START = Progress(0, 0, 0.0)
Rows = list[list[float]]


def texts(lengths: Sequence[int], longest: int = 5) -> Batch:
    """A batch of texts of these lengths, padded to five tokens."""
    shape = (len(lengths), longest)
    ids = torch.zeros(shape, dtype=torch.int64)
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    tokens = Tokens(ids, mask, ids, torch.zeros(len(lengths), 1, dtype=torch.uint8))
    return Batch(tokens, torch.zeros(len(lengths), dtype=torch.int64), torch.arange(len(lengths)))


def states(seed: int, samples: int, width: int, longest: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(samples, longest, width, generator=generator, dtype=torch.float64)


class Case:
    """Features of a student and a teacher at some layers, padding included."""

    def __init__(self, lengths: list[int], own: Sequence[int], other: Sequence[int]) -> None:
        self.batch, self.lengths = texts(lengths), lengths
        count = len(lengths)
        self.own = [states(10 + n, count, width).requires_grad_() for n, width in enumerate(own)]
        self.other = [states(50 + n, count, width) for n, width in enumerate(other)]

    def matched(self, comparison: Comparison | JointComparison) -> Matched:
        taps = [str(number) for number in range(len(self.own))]
        matched = Matched(comparison, taps, taps).double()
        matched.meet(self.said(self.own), (self.said(self.other),))
        return matched.double()

    def values(self, matched: Matched) -> Tensor:
        weights = torch.ones(1, len(self.lengths), dtype=torch.float64)
        own, other = self.said(self.own), (self.said(self.other),)
        values: Tensor = matched(own, other, weights, self.batch, START)
        return values

    def said(self, features: list[Tensor]) -> Output:
        logits = torch.zeros(len(self.lengths), 2, dtype=torch.float64)
        return Output(logits, {str(number): each for number, each in enumerate(features)})

    def rows(self) -> list[tuple[list[Rows], list[Rows]]]:
        """For each text the features of both networks at its tokens."""
        return [
            (
                [f[i, :length].tolist() for f in self.own],
                [f[i, :length].tolist() for f in self.other],
            )
            for i, length in enumerate(self.lengths)
        ]


@pytest.fixture
def reading() -> Any:
    """What makes batches of texts, states and cases."""
    return SimpleNamespace(texts=texts, states=states, case=Case)


@pytest.fixture(params=[[3], [5, 1, 3], [4, 4], [5, 2, 1, 4]], ids=str)
def lengths(request: pytest.FixtureRequest) -> list[int]:
    """How many tokens the texts of a batch have, of five."""
    numbers: list[int] = request.param
    return numbers


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def softmax(scores: list[float]) -> list[float]:
    powers = [math.exp(score - max(scores)) for score in scores]
    return [power / math.fsum(powers) for power in powers]


def kl_of_softmax(target: list[float], said: list[float]) -> float:
    pairs = zip(softmax(target), softmax(said), strict=True)
    return math.fsum(t * math.log(t / p) for t, p in pairs)


def squares(own: Rows, other: Rows) -> list[float]:
    """Of the differences of all numbers."""
    pairs = zip(own, other, strict=True)
    return [(a - b) ** 2 for s, t in pairs for a, b in zip(s, t, strict=True)]


def part(rows: Rows, head: int, heads: int) -> Rows:
    """The dimensions of one head."""
    size = len(rows[0]) // heads
    return [row[head * size : (head + 1) * size] for row in rows]


def products(queries: Rows, keys: Rows) -> Rows:
    size = len(queries[0])
    return [
        [math.fsum(a * b for a, b in zip(q, k, strict=True)) / math.sqrt(size) for k in keys]
        for q in queries
    ]


def scores(features: list[Rows], heads: int) -> list[list[Rows]]:
    """For each pair of query and key, and for each head, the products of its part of both."""
    return [
        [
            products(part(features[layer], head, heads), part(features[layer + 1], head, heads))
            for head in range(heads)
        ]
        for layer in range(0, len(features), 2)
    ]


@pytest.fixture
def naive() -> Any:
    """The arithmetic of the equations, number by number, for one text without padding."""
    return SimpleNamespace(
        mean=mean,
        kl_of_softmax=kl_of_softmax,
        squares=squares,
        part=part,
        products=products,
        scores=scores,
    )
