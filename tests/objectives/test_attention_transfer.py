"""Attention maps, their sizes and their scale."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ensemble_kd.objectives import AttentionTransfer

SHAPES: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((4, 6, 6), (5, 6, 6)),
    ((4, 6, 6), (5, 3, 4)),
    ((3, 3, 5), (4, 7, 4)),
    ((5, 4), (5, 7)),
]


def pair(
    b: int, own: tuple[int, ...], other: tuple[int, ...], dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(b)
    student = torch.randn(b, *own, generator=generator, dtype=dtype)
    return student, torch.randn(b, *other, generator=generator, dtype=dtype)


def reference_pooled(plane: list[list[float]], height: int, width: int) -> list[float]:
    """The means of the cells into which adaptive average pooling divides a plane."""
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


def reference_attention(student: Tensor, teacher: Tensor) -> list[float]:
    """Equation 2 with squares and their mean, F_sum^2 (its sum over the channels) as the map."""
    values = []
    for own, other in zip(student, teacher, strict=True):
        maps = []
        for feature in (own, other):
            if feature.ndim == 2:
                maps.append([[sum(float(a) ** 2 for a in token) for token in feature]])
                continue
            planes = feature.tolist()
            rows, columns = range(feature.shape[1]), range(feature.shape[2])
            maps.append([[sum(p[y][x] ** 2 for p in planes) for x in columns] for y in rows])
        height = min(len(plane) for plane in maps)
        width = min(len(plane[0]) for plane in maps)
        q, t = (reference_pooled(plane, height, width) for plane in maps)
        long_q, long_t = (math.sqrt(sum(a * a for a in v)) for v in (q, t))
        squares = [(a / long_q - b / long_t) ** 2 for a, b in zip(q, t, strict=True)]
        values.append(sum(squares) / len(squares))
    return values


@pytest.mark.parametrize(("own", "other"), SHAPES)
@pytest.mark.parametrize("b", [1, 2, 5])
def test_it_is_the_papers_equation(b: int, own: tuple[int, ...], other: tuple[int, ...]) -> None:
    student, teacher = pair(b, own, other)
    values = AttentionTransfer().between(student, teacher)(student, teacher)
    assert values.shape == (b,)
    assert values.tolist() == pytest.approx(reference_attention(student, teacher), abs=1e-12)


def test_the_order_of_channels_their_number_and_the_scale_do_not_count() -> None:
    student, _ = pair(5, (4, 6, 6), (1,))
    same = 3 * torch.cat([student, -student], dim=1).flip(1)
    module = AttentionTransfer().between(student, same)
    assert module(student, same).tolist() == pytest.approx([0.0] * 5, abs=1e-15)


def test_attention_on_two_different_places_is_as_far_as_can_be() -> None:
    student, teacher = torch.zeros(1, 2, 1, 4), torch.zeros(1, 3, 1, 4)
    student[..., 0], teacher[..., 2] = 5.0, -2.0
    value = AttentionTransfer().between(student, teacher)(student, teacher)
    assert value.item() == pytest.approx(2 / 4)


@pytest.mark.parametrize(
    ("own", "other"), [((4,), (4,)), ((4, 6, 6), (4,)), ((5, 4), (6, 4)), ((4, 6, 6), (5, 4))]
)
def test_features_without_places_are_refused(own: tuple[int, ...], other: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"needs places: .* got \("):
        AttentionTransfer().between(*pair(2, own, other))


@pytest.mark.parametrize(("own", "other"), SHAPES)
def test_the_student_receives_gradient_and_the_teacher_none(
    own: tuple[int, ...], other: tuple[int, ...]
) -> None:
    student, teacher = pair(5, own, other)
    module = AttentionTransfer().between(student, teacher).double()
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
        module = AttentionTransfer().between(student, teacher)
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
    module = AttentionTransfer().between(student, teacher)
    values = module(student, teacher)
    assert values.dtype == torch.float32
    assert torch.isfinite(values).all()
    assert torch.equal(values, module(student.float(), teacher.float()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(module(student, teacher), values)
