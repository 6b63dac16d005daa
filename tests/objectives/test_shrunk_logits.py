from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from ensemble_kd.objectives import ShrunkLogits
from ensemble_kd.types import Batch, Output, Progress

BATCH = Batch(None, torch.zeros(4, dtype=torch.long), torch.arange(4))


def at(fraction: float) -> Progress:
    return Progress(0, 0, fraction)


def logits(members: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(members + 1, 4, 5, generator=generator, dtype=torch.float64)


def reference_temperature(step: int, steps: int, most: int) -> int:
    """Stage I of the paper with whole epochs: M for the first steps / M of them, then M - 1, ..."""
    schedule = [t for t in range(most, 0, -1) for _ in range(steps // most)]
    return schedule[step]


def reference(z: Tensor, targets: Tensor, weights: Tensor, temperature: int, most: int) -> Tensor:
    """The distance of each sample, in loops."""
    phi = 1 - (temperature - 1) / most
    values = []
    for b in range(len(z)):
        total = 0.0
        for k in range(len(targets)):
            for c in range(z.shape[-1]):
                total += (
                    float(weights[k, b]) * (float(z[b, c]) - phi * float(targets[k, b, c])) ** 2
                )
        values.append(total)
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("most", [1, 2, 7, 10])
def test_the_temperature_falls_by_one_in_equal_parts(most: int) -> None:
    objective = ShrunkLogits(most)
    for step in range(4 * most):
        temperature = reference_temperature(step, 4 * most, most)
        expected = 1 - (temperature - 1) / most
        assert objective.factor(step / (4 * most)) == pytest.approx(expected), step
    assert objective.factor(0.0) == pytest.approx(1 / most)
    assert objective.factor(1.0) == 1.0


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize(("fraction", "temperature"), [(0.0, 10), (0.55, 5), (0.99, 1), (1.0, 1)])
def test_it_is_the_weighted_squared_distance(
    members: int, fraction: float, temperature: int
) -> None:
    z, *taught = logits(members)
    weights = torch.rand(members, 4, dtype=torch.float64).softmax(0)
    got = ShrunkLogits(10)(
        Output(z), tuple(Output(t) for t in taught), weights, BATCH, at(fraction)
    )
    torch.testing.assert_close(got, reference(z, torch.stack(taught), weights, temperature, 10))


def test_the_mean_over_classes_is_the_norm_over_their_number() -> None:
    z, t = logits(1)
    one = torch.ones(1, 4)
    said = (Output(z), (Output(t),), one, BATCH, at(0.3))
    torch.testing.assert_close(
        ShrunkLogits(reduction="class_mean")(*said) * 5, ShrunkLogits(reduction="sum")(*said)
    )


def test_several_teachers_pull_like_the_mean_of_their_logits() -> None:
    z, *taught = logits(3)
    z.requires_grad_()
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)[:, None].expand(3, 4)
    merged = sum((w * t for w, t in zip([0.2, 0.5, 0.3], taught, strict=True)), torch.zeros(4, 5))
    each = ShrunkLogits()(Output(z), tuple(map(Output, taught)), weights, BATCH, at(0.5)).sum()
    mean = ShrunkLogits()(Output(z), (Output(merged),), torch.ones(1, 4), BATCH, at(0.5)).sum()
    pulled, expected = (torch.autograd.grad(loss, z)[0] for loss in (each, mean))
    torch.testing.assert_close(pulled, expected)


def test_the_students_logits_are_not_shrunk() -> None:
    z = logits(0)[0].requires_grad_()
    values = ShrunkLogits()(Output(z), (Output(torch.zeros(4, 5)),), torch.ones(1, 4), BATCH, at(0))
    (gradient,) = torch.autograd.grad(values.sum(), z)
    torch.testing.assert_close(gradient, 2 * z.detach())


def test_no_gradient_reaches_a_teacher() -> None:
    z, t = logits(1)
    z.requires_grad_()
    t.requires_grad_()
    ShrunkLogits()(Output(z), (Output(t),), torch.ones(1, 4), BATCH, at(0.0)).sum().backward()
    assert z.grad is not None
    assert t.grad is None


@pytest.mark.parametrize("scale", [0.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.half])
def test_saturated_logits_stay_finite(scale: float, dtype: torch.dtype) -> None:
    z = torch.full((4, 5), -scale, dtype=dtype, requires_grad=True)
    t = torch.full((4, 5), scale, dtype=dtype)
    loss = ShrunkLogits()(Output(z), (Output(t),), torch.ones(1, 4), BATCH, at(1.0)).mean()
    (gradient,) = torch.autograd.grad(loss, z)
    assert math.isfinite(loss.item())
    assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_temperature": 0}, "max_temperature must be an integer >= 1, got 0"),
        ({"reduction": "mean"}, "reduction must be one of sum, class_mean, got 'mean'"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ShrunkLogits(**arguments)


def test_no_teacher_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one teacher"):
        ShrunkLogits()(Output(logits(0)[0]), (), torch.ones(0, 4), BATCH, at(0.0))
