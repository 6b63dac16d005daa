"""Which samples are alike, in a batch of any size."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ensemble_kd.objectives import Similarity

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


def reference_likeness(feature: Tensor) -> list[list[float]]:
    rows = [sample.flatten().tolist() for sample in feature]
    products = [[sum(p * q for p, q in zip(x, y, strict=True)) for y in rows] for x in rows]
    return [[g / math.sqrt(sum(h * h for h in row)) for g in row] for row in products]


def reference_similarity(student: Tensor, teacher: Tensor) -> list[float]:
    """Equations 2 to 4, row by row."""
    own, other = reference_likeness(student), reference_likeness(teacher)
    b = len(own)
    return [sum((own[i][j] - other[i][j]) ** 2 for j in range(b)) / b for i in range(b)]


@pytest.mark.parametrize(("own", "other"), SHAPES)
@pytest.mark.parametrize("b", [1, 2, 5])
def test_it_is_the_papers_equation(b: int, own: tuple[int, ...], other: tuple[int, ...]) -> None:
    student, teacher = pair(b, own, other)
    values = Similarity().between(student, teacher)(student, teacher)
    assert values.shape == (b,)
    assert values.tolist() == pytest.approx(reference_similarity(student, teacher), abs=1e-12)


def test_the_mean_over_the_samples_is_the_published_loss() -> None:
    student, teacher = pair(5, *SHAPES[0])
    matrices = [torch.tensor(reference_likeness(x)) for x in (student, teacher)]
    published = torch.linalg.matrix_norm(matrices[0] - matrices[1]).item() ** 2 / 5**2
    values = Similarity().between(student, teacher)(student, teacher)
    assert values.mean().item() == pytest.approx(published)


def test_a_rotated_and_scaled_copy_is_as_good_as_the_feature() -> None:
    student, other = pair(5, (7,), (7, 7))
    rotation, _ = torch.linalg.qr(other[0])
    module = Similarity().between(student, student)
    assert module(student, 3 * student @ rotation).tolist() == pytest.approx([0.0] * 5, abs=1e-15)


def test_two_samples_by_hand() -> None:
    student = torch.tensor([[1.0, 0.0], [0.0, 1.0]])  # not alike: rows (1, 0) and (0, 1)
    teacher = torch.tensor([[2.0], [2.0]])  # alike: rows (1, 1) / sqrt(2)
    values = Similarity().between(student, teacher)(student, teacher)
    one = ((1 - 0.5**0.5) ** 2 + 0.5) / 2
    assert values.tolist() == pytest.approx([one, one])


@pytest.mark.parametrize(("own", "other"), SHAPES)
def test_the_student_receives_gradient_and_the_teacher_none(
    own: tuple[int, ...], other: tuple[int, ...]
) -> None:
    student, teacher = pair(5, own, other)
    module = Similarity().between(student, teacher).double()
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
        module = Similarity().between(student, teacher)
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
    module = Similarity().between(student, teacher)
    values = module(student, teacher)
    assert values.dtype == torch.float32
    assert torch.isfinite(values).all()
    assert torch.equal(values, module(student.float(), teacher.float()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(module(student, teacher), values)
