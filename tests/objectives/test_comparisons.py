"""What all comparisons of features have in common, whatever they compare."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ensemble_kd.objectives import (
    ActivationBoundary,
    AttentionTransfer,
    Correlation,
    Factor,
    Nst,
    Overhaul,
    Pkt,
    Relation,
    Rkd,
    Similarity,
    Vid,
)

Pair = Callable[..., tuple[Tensor, Tensor]]
Shape = tuple[int, ...]
PLACES: list[tuple[Shape, Shape]] = [
    ((4, 6, 6), (5, 6, 6)),
    ((4, 6, 6), (5, 3, 4)),
    ((3, 3, 5), (4, 7, 4)),
    ((5, 4), (5, 7)),
]
SAMPLES: list[tuple[Shape, Shape]] = [
    ((4, 6, 6), (5, 3, 4)),
    ((4, 3, 3), (4, 3, 3)),
    ((4,), (6,)),
    ((3, 4), (5, 7)),
    ((2, 3, 3), (9,)),
]
VALUES: list[tuple[Shape, Shape]] = [
    ((4, 6, 6), (5, 6, 6)),
    ((4, 6, 6), (5, 3, 4)),
    ((4, 3, 3), (4, 7, 5)),
    ((5, 4), (5, 7)),
    ((4, 6, 6), (9,)),
    ((4,), (6,)),
]
PLACE_BY_PLACE: list[tuple[Shape, Shape]] = [
    ((4, 6, 6), (5, 6, 6)),
    ((5, 4), (5, 7)),
    ((4, 2, 3), (6, 7)),
]
BY_PLACES: list[Any] = [AttentionTransfer, Nst]
LEARNED: list[Any] = [ActivationBoundary, Factor, Overhaul, Vid]
SHAPES: dict[Any, list[tuple[Shape, Shape]]] = {
    **dict.fromkeys(BY_PLACES, PLACES),
    **dict.fromkeys([Correlation, Pkt, Rkd, Similarity], SAMPLES),
    **dict.fromkeys(LEARNED, VALUES),
    Relation: PLACE_BY_PLACE,
}
ALL_SHAPES = [(leaf, *shapes) for leaf, each in SHAPES.items() for shapes in each]
TWO_SHAPES = [(leaf, *shapes) for leaf, each in SHAPES.items() for shapes in (each[0], each[-1])]


@pytest.mark.parametrize(("leaf", "own", "other"), ALL_SHAPES)
def test_the_student_and_what_is_learned_receive_gradient_and_the_teacher_none(
    pair: Pair, leaf: Any, own: Shape, other: Shape
) -> None:
    student, teacher = pair(5, own, other)
    module = leaf().between(student, teacher).double()
    student.requires_grad_()
    teacher.requires_grad_()
    module(student, teacher).sum().backward()
    assert student.grad is not None
    assert (student.grad != 0).any()
    assert teacher.grad is None
    assert bool(list(module.parameters())) is (leaf in LEARNED)
    learned = [p for p in module.parameters() if p.requires_grad]
    assert all(p.grad is not None and (p.grad != 0).any() for p in learned)
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
@pytest.mark.parametrize(("leaf", "own", "other"), TWO_SHAPES)
def test_values_and_gradients_stay_finite_and_modest(
    pair: Pair, leaf: Any, own: Shape, other: Shape, b: int, kind: str
) -> None:
    plain = pair(b, own, other, torch.float32)
    odd = [spoilt(feature, kind) for feature in plain]
    for student, teacher in ((odd[0], plain[1]), (plain[0], odd[1]), (odd[0], odd[1])):
        module = leaf().between(student, teacher)
        student = student.clone().requires_grad_()
        values = module(student, teacher)
        assert values.shape == (b,)
        assert torch.isfinite(values).all()
        values.sum().backward()
        assert student.grad is not None
        assert (student.grad.abs() < 1e6).all()  # and no NaN


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("leaf", SHAPES)
def test_half_precision_is_compared_in_single(pair: Pair, leaf: Any, dtype: torch.dtype) -> None:
    student, teacher = (300 * x.to(dtype) for x in pair(5, *SHAPES[leaf][0]))
    module = leaf().between(student, teacher)
    values = module(student, teacher)
    assert values.dtype == torch.float32
    assert torch.isfinite(values).all()
    assert torch.equal(values, module(student.float(), teacher.float()))


@pytest.mark.parametrize("leaf", [Correlation, Pkt, Similarity])
def test_a_rotated_and_scaled_copy_is_as_good_as_the_feature(pair: Pair, leaf: Any) -> None:
    student, other = pair(5, (7,), (7, 7))
    rotation, _ = torch.linalg.qr(other[0])
    module = leaf().between(student, student)
    assert module(student, 3 * student @ rotation).tolist() == pytest.approx([0.0] * 5, abs=1e-15)
    assert (module(student, other.flatten(1)[:5]) > 0.001).all()


@pytest.mark.parametrize("leaf", BY_PLACES)
@pytest.mark.parametrize(
    ("own", "other"), [((4,), (4,)), ((4, 6, 6), (4,)), ((5, 4), (6, 4)), ((4, 6, 6), (5, 4))]
)
def test_features_without_places_are_refused(
    pair: Pair, leaf: Any, own: Shape, other: Shape
) -> None:
    with pytest.raises(ValueError, match=r"needs places: .* got \("):
        leaf().between(*pair(2, own, other))
