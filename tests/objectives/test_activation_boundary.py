"""Sides of zero, margins and the connectors with BatchNorm."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ensemble_kd.objectives import ActivationBoundary

Pair = Callable[..., tuple[Tensor, Tensor]]
SHAPES: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((4, 6, 6), (5, 6, 6)),
    ((4, 6, 6), (5, 3, 4)),
    ((4, 3, 3), (4, 7, 5)),
    ((5, 4), (5, 7)),
    ((4, 6, 6), (9,)),
    ((4,), (6,)),
]


def reference_normalised(mapped: Tensor, eps: float = 1e-5) -> Tensor:
    """BatchNorm as it starts, channel by channel; a single value is left as it is."""
    axis = 1 if mapped.ndim == 4 else mapped.ndim - 1
    said = mapped.clone()
    for channel in range(mapped.shape[axis]):
        values = mapped.select(axis, channel).flatten().tolist()
        mean = sum(values) / len(values)
        variance = sum((v - mean) ** 2 for v in values) / len(values)
        if len(values) == 1:
            mean, variance = 0.0, 1.0
        said.select(axis, channel).sub_(mean).div_(math.sqrt(variance + eps))
    return said


def reference_boundary(mapped: Tensor, teacher: Tensor, margin: float) -> list[float]:
    """The alternative loss of the paper, case by case."""
    values = []
    for own, other in zip(mapped, teacher, strict=True):
        total, count = 0.0, 0
        for index in itertools.product(*(range(n) for n in other.shape)):
            s, t = float(own[index]), float(other[index])
            if t <= 0 and s > -margin:
                total += (s + margin) ** 2
            elif t > 0 and s <= margin:
                total += (s - margin) ** 2
            count += 1
        values.append(total / count)
    return values


@pytest.mark.parametrize(("own", "other"), SHAPES)
@pytest.mark.parametrize("b", [1, 2, 5])
@pytest.mark.parametrize("margin", [1.0, 0.3])
def test_it_is_the_papers_equation(
    pair: Pair, b: int, own: tuple[int, ...], other: tuple[int, ...], margin: float
) -> None:
    student, teacher = pair(b, own, other)
    module: Any = ActivationBoundary(margin).between(student, teacher).double()
    values = module(student, teacher)
    assert values.shape == (b,)
    mapped = reference_normalised(module.connector[0](student).detach())
    expected = reference_boundary(mapped, teacher, margin)
    assert values.tolist() == pytest.approx(expected, abs=1e-12)


def test_the_connector_is_a_layer_without_bias_and_batchnorm(pair: Pair) -> None:
    module: Any = ActivationBoundary().between(*pair(2, (4, 6, 6), (5, 3, 3)))
    shapes = [tuple(p.shape) for p in module.parameters()]
    assert shapes == [(5, 4, 1, 1), (5,), (5,)]
    assert int(module.connector[1].norm.num_batches_tracked) == 0
    module(*pair(2, (4, 6, 6), (5, 3, 3), torch.float32))
    assert int(module.connector[1].norm.num_batches_tracked) == 1


def test_beyond_the_margin_on_the_right_side_there_is_nothing_to_learn() -> None:
    teacher = torch.tensor([[0.5, -0.1, 0.0, 9.0]])
    module: Any = ActivationBoundary().between(teacher, teacher)
    module.connector = nn.Identity()
    right = torch.tensor([[1.0, -1.0, -7.0, 3.0]], requires_grad=True)
    value = module(right, teacher)
    assert value.item() == 0.0
    value.sum().backward()
    assert right.grad is not None
    assert (right.grad == 0).all()
    assert module(torch.zeros(1, 4), teacher).item() == 1.0
    assert module(-right, teacher).item() == (4 + 4 + 64 + 16) / 4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"margin": 0.0}, "margin must be a finite number > 0, got 0.0"),
        ({"margin": math.nan}, "margin must be a finite number > 0, got nan"),
    ],
)
def test_arguments_out_of_range(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ActivationBoundary(**arguments)
