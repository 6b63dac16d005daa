"""Kernel values between samples."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from ensemble_kd.objectives import Correlation

SHAPES: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((4, 6, 6), (5, 3, 4)),
    ((4, 3, 3), (4, 3, 3)),
    ((4,), (6,)),
    ((3, 4), (5, 7)),
    ((2, 3, 3), (9,)),
]


def pair(
    b: int, own: tuple[int, ...], other: tuple[int, ...], dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(b)
    student = torch.randn(b, *own, generator=generator, dtype=dtype)
    return student, torch.randn(b, *other, generator=generator, dtype=dtype)


def reference_kernel(feature: Tensor, gamma: float, order: int) -> list[list[float]]:
    """The Taylor form of the Gaussian kernel, term by term."""
    x = [sample.flatten().tolist() for sample in feature]
    x = [[a / math.hypot(*sample) for a in sample] for sample in x]
    kernel = [[0.0] * len(x) for _ in x]
    for i, one in enumerate(x):
        for j, two in enumerate(x):
            product = sum(p * q for p, q in zip(one, two, strict=True))
            for p in range(order + 1):
                factor = math.exp(-2 * gamma) * (2 * gamma) ** p / math.factorial(p)
                kernel[i][j] += factor * product**p
    return kernel


def reference_correlation(
    student: Tensor, teacher: Tensor, gamma: float, order: int
) -> list[float]:
    """|K_s - K_t|^2 / b^2, row by row and times b."""
    own, other = (reference_kernel(x, gamma, order) for x in (student, teacher))
    b = len(own)
    return [sum((own[i][j] - other[i][j]) ** 2 for j in range(b)) / b for i in range(b)]


@pytest.mark.parametrize(("own", "other"), SHAPES)
@pytest.mark.parametrize("b", [1, 2, 5])
@pytest.mark.parametrize(("gamma", "order"), [(0.4, 2), (2.0, 1), (0.1, 5)])
def test_it_is_the_papers_equation(
    b: int, own: tuple[int, ...], other: tuple[int, ...], gamma: float, order: int
) -> None:
    student, teacher = pair(b, own, other)
    values = Correlation(gamma, order).between(student, teacher)(student, teacher)
    assert values.shape == (b,)
    expected = reference_correlation(student, teacher, gamma, order)
    assert values.tolist() == pytest.approx(expected, abs=1e-12)


def test_a_high_order_is_the_gaussian_kernel() -> None:
    student, teacher = pair(5, (4,), (6,))
    units = [x / x.norm(dim=1, keepdim=True) for x in (student, teacher)]
    kernels = [torch.exp(-0.4 * torch.cdist(x, x).square()) for x in units]
    expected = (kernels[0] - kernels[1]).square().mean().item()
    values = Correlation(order=15).between(student, teacher)(student, teacher)
    assert values.mean().item() == pytest.approx(expected)


def test_a_rotated_and_scaled_copy_is_as_good_as_the_feature() -> None:
    student, other = pair(5, (7,), (7, 7))
    rotation, _ = torch.linalg.qr(other[0])
    module = Correlation().between(student, student)
    assert module(student, 3 * student @ rotation).tolist() == pytest.approx([0.0] * 5, abs=1e-15)
    assert (module(student, other.flatten(1)[:5]) > 0.001).all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"gamma": 0.0}, "gamma must be a finite number > 0, got 0.0"),
        ({"gamma": math.inf}, "gamma must be a finite number > 0, got inf"),
        ({"order": 0}, "order must be >= 1, got 0"),
    ],
)
def test_arguments_out_of_range(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Correlation(**arguments)


@pytest.mark.parametrize(("own", "other"), SHAPES)
def test_the_student_receives_gradient_and_the_teacher_none(
    own: tuple[int, ...], other: tuple[int, ...]
) -> None:
    student, teacher = pair(5, own, other)
    module = Correlation().between(student, teacher).double()
    student.requires_grad_()
    teacher.requires_grad_()
    module(student, teacher).sum().backward()
    assert student.grad is not None
    assert (student.grad != 0).any()
    assert teacher.grad is None
    assert torch.autograd.gradcheck(lambda x: module(x, teacher.detach()), student)


def spoilt(feature: Tensor, kind: str) -> Tensor:
    """A feature as it may be when a network has gone astray, or a batch is drawn unluckily."""
    kinds = {
        "zeros": torch.zeros_like(feature),
        "constant": torch.full_like(feature, 0.7),
        "huge": 1e4 * feature,
        "zero sample": torch.cat([torch.zeros_like(feature[:1]), feature[1:]]),
        "equal samples": torch.cat([feature[:1], feature[:1], feature[2:]])[: len(feature)],
    }
    return kinds[kind]


@pytest.mark.parametrize("kind", ["zeros", "constant", "huge", "zero sample", "equal samples"])
@pytest.mark.parametrize("b", [1, 2, 5])
@pytest.mark.parametrize(("own", "other"), [SHAPES[0], SHAPES[-1]])
def test_values_and_gradients_stay_finite_and_modest(
    own: tuple[int, ...], other: tuple[int, ...], b: int, kind: str
) -> None:
    plain = pair(b, own, other, torch.float32)
    odd = [spoilt(feature, kind) for feature in plain]
    for student, teacher in ((odd[0], plain[1]), (plain[0], odd[1]), (odd[0], odd[1])):
        module = Correlation().between(student, teacher)
        student = student.clone().requires_grad_()
        values = module(student, teacher)
        assert values.shape == (b,)
        assert torch.isfinite(values).all()
        values.sum().backward()
        assert student.grad is not None
        assert (student.grad.abs() < 1e6).all()  # and no NaN


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_compared_in_single(dtype: torch.dtype) -> None:
    student, teacher = (300 * x.to(dtype) for x in pair(5, *SHAPES[0]))
    module = Correlation().between(student, teacher)
    values = module(student, teacher)
    assert values.dtype == torch.float32
    assert torch.isfinite(values).all()
    assert torch.equal(values, module(student.float(), teacher.float()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(module(student, teacher), values)
