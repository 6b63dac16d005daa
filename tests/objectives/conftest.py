"""What the tests of several objectives need: voices, features and reference targets."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch
from torch import Tensor

from ensemble_kd.functional import Merge
from ensemble_kd.types import UNLABELLED, Batch, Output

Voices = tuple[Output, tuple[Output, ...], Tensor, Batch]
Compared = list[tuple[float, list[float], list[float]]]


def speak(
    seed: int,
    members: int,
    shape: tuple[int, ...] = (4,),
    classes: int = 5,
    *,
    labelled: bool = False,
) -> Voices:
    """Student, teachers, weights and batch, in float64."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(members + 1, *shape, classes, generator=generator, dtype=torch.float64)
    weights = torch.rand(members, *shape, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, shape, generator=generator)
    target = labels if labelled else torch.full(shape, UNLABELLED)
    student = Output(logits[0].clone().requires_grad_())
    teachers = tuple(Output(z) for z in logits[1:])
    return student, teachers, weights / weights.sum(0), Batch(None, target, torch.arange(shape[0]))


@pytest.fixture
def said() -> Callable[..., Voices]:
    """Makes voices: ``said(seed, members, shape=(4,), classes=5, labelled=False)``."""
    return speak


@pytest.fixture(
    params=itertools.product(get_args(Merge), [(4,), (2, 3)], [2, 5], [1, 3], [1.0, 3.0]),
    ids=str,
)
def case(request: pytest.FixtureRequest) -> tuple[Voices, float, Merge]:
    """Labelled voices over a grid of shapes, classes and teachers, a temperature and a merge."""
    merge, shape, classes, members, temperature = request.param
    return speak(members, members, shape, classes, labelled=True), temperature, merge


def softmax(logits: list[float], temperature: float) -> list[float]:
    powers = [math.exp(z / temperature) for z in logits]
    return [power / math.fsum(powers) for power in powers]


def targets(
    teachers: list[list[float]], weights: list[float], temperature: float, merge: Merge
) -> list[tuple[float, list[float]]]:
    """The distributions that one sample is compared with, each with its weight."""
    pairs = list(zip(weights, teachers, strict=True))
    classes = range(len(teachers[0]))
    if merge == "losses":
        return [(w, softmax(z, temperature)) for w, z in pairs]
    if merge == "logits":
        mean = [math.fsum(w * z[c] for w, z in pairs) for c in classes]
        return [(1.0, softmax(mean, temperature))]
    each = [(w, softmax(z, temperature)) for w, z in pairs]
    return [(1.0, [math.fsum(w * p[c] for w, p in each) for c in classes])]


@pytest.fixture
def reference_softmax() -> Callable[[list[float], float], list[float]]:
    """The softmax of logits at a temperature, power by power."""
    return softmax


@pytest.fixture
def reference_compared() -> Callable[..., list[Compared]]:
    """What each sample compares: (weight, the teachers' probabilities p, the student's q)."""

    def compared(
        student: Tensor, teachers: list[Tensor], weights: Tensor, temperature: float, merge: Merge
    ) -> list[Compared]:
        own = student.detach().flatten(0, -2).tolist()
        taught = torch.stack(teachers).flatten(1, -2)
        shares = weights.flatten(1)
        samples = []
        for i, z in enumerate(own):
            q = softmax(z, temperature)
            merged = targets(taught[:, i].tolist(), shares[:, i].tolist(), temperature, merge)
            samples.append([(w, p, q) for w, p in merged])
        return samples

    return compared


@pytest.fixture
def pair() -> Callable[..., tuple[Tensor, Tensor]]:
    """Makes the features of a student and a teacher: ``pair(b, own, other, dtype=float64)``."""

    def features(
        b: int, own: tuple[int, ...], other: tuple[int, ...], dtype: torch.dtype = torch.float64
    ) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(b)
        student = torch.randn(b, *own, generator=generator, dtype=dtype)
        return student, torch.randn(b, *other, generator=generator, dtype=dtype)

    return features


@pytest.fixture
def reference_pooled() -> Callable[[list[list[float]], int, int], list[float]]:
    """The means of the cells into which adaptive average pooling divides a plane."""

    def pooled(plane: list[list[float]], height: int, width: int) -> list[float]:
        rows, columns = len(plane), len(plane[0])
        cells = []
        for u in range(height):
            for v in range(width):
                inside = [
                    plane[y][x]
                    for y in range(u * rows // height, math.ceil((u + 1) * rows / height))
                    for x in range(v * columns // width, math.ceil((v + 1) * columns / width))
                ]
                cells.append(sum(inside) / len(inside))
        return cells

    return pooled
