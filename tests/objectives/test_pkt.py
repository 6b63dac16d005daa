"""The neighbours of each sample."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ensemble_kd.objectives import Pkt

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


def reference_neighbours(feature: Tensor) -> list[list[float]]:
    """The conditional probabilities of the cosine kernel; a sample is not its own neighbour."""
    x = [sample.flatten().tolist() for sample in feature]
    b = len(x)
    kernel = [[0.0] * b for _ in range(b)]
    for i in range(b):
        for j in range(b):
            product = sum(p * q for p, q in zip(x[i], x[j], strict=True))
            cosine = product / (math.hypot(*x[i]) * math.hypot(*x[j]))
            kernel[i][j] = 0.0 if i == j else (cosine + 1) / 2
    return [[k / sum(row) for k in row] if b > 1 else [0.0] for row in kernel]


def reference_pkt(student: Tensor, teacher: Tensor) -> list[float]:
    """For each sample, the sum over the others of p log(p / q)."""
    own, other = reference_neighbours(student), reference_neighbours(teacher)
    return [
        sum(p * math.log(p / q) for p, q in zip(t, s, strict=True) if p > 0)
        for s, t in zip(own, other, strict=True)
    ]


@pytest.mark.parametrize(("own", "other"), SHAPES)
@pytest.mark.parametrize("b", [1, 2, 5])
def test_it_is_the_papers_equation(b: int, own: tuple[int, ...], other: tuple[int, ...]) -> None:
    student, teacher = pair(b, own, other)
    values = Pkt().between(student, teacher)(student, teacher)
    assert values.shape == (b,)
    assert values.tolist() == pytest.approx(reference_pkt(student, teacher), abs=1e-12)


def test_a_rotated_and_scaled_copy_is_as_good_as_the_feature() -> None:
    student, other = pair(5, (7,), (7, 7))
    rotation, _ = torch.linalg.qr(other[0])
    module = Pkt().between(student, student)
    assert module(student, 3 * student @ rotation).tolist() == pytest.approx([0.0] * 5, abs=1e-15)
    assert (module(student, other.flatten(1)[:5]) > 0.001).all()


def test_three_samples_by_hand() -> None:
    student = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])  # of the first: 2/3 and 1/3
    teacher = torch.ones(3, 4)  # 1/2 and 1/2
    first, second, third = Pkt().between(student, teacher)(student, teacher).tolist()
    assert first == second == pytest.approx((math.log(3 / 4) + math.log(3 / 2)) / 2)
    assert third == pytest.approx(0.0, abs=1e-7)


def test_opposite_samples_are_almost_no_neighbours() -> None:
    student = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    teacher = torch.ones(3, 4)
    values = Pkt().between(student, teacher)(student, teacher)
    smallest = 1e-7 / (0.5 + 1e-7)
    expected = (math.log(0.5 / smallest) + math.log(0.5 / (1 - smallest))) / 2
    assert values[:2].tolist() == pytest.approx([expected, expected], rel=1e-5)
    values.sum().backward()
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize(("own", "other"), SHAPES)
def test_the_student_receives_gradient_and_the_teacher_none(
    own: tuple[int, ...], other: tuple[int, ...]
) -> None:
    student, teacher = pair(5, own, other)
    module = Pkt().between(student, teacher).double()
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
        module = Pkt().between(student, teacher)
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
    module = Pkt().between(student, teacher)
    values = module(student, teacher)
    assert values.dtype == torch.float32
    assert torch.isfinite(values).all()
    assert torch.equal(values, module(student.float(), teacher.float()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(module(student, teacher), values)
