"""Fusions of layers from deep to shallow, and the hierarchical distance."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ensemble_kd.config import compose
from ensemble_kd.engine import CURVES, Engine
from ensemble_kd.objectives import ReviewKd
from ensemble_kd.objectives.reviewkd import as_map
from ensemble_kd.plan import make_plan
from ensemble_kd.report.curves import read_points
from ensemble_kd.store import Store

Shapes = list[tuple[int, ...]]
Pooled = Callable[[list[list[float]], int, int], list[float]]
CASES: list[tuple[Shapes, Shapes]] = [
    ([(3, 8, 8), (4, 4, 4), (5, 2, 2)], [(4, 8, 8), (6, 4, 4), (7, 2, 2)]),
    ([(3, 8, 8), (4, 4, 4), (5,)], [(4, 8, 8), (6, 4, 4), (7,)]),
    ([(3, 6, 5), (4, 3, 4), (2, 3, 3)], [(4, 3, 7), (6, 5, 5), (7, 1, 2)]),
    ([(3, 6, 6), (4,)], [(4, 3, 3), (6, 2, 2)]),
    ([(3, 7, 7)], [(4, 7, 7)]),
    ([(3,)], [(4,)]),
]


def features(
    shapes: Shapes, seed: int, b: int = 3, dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(b, *shape, generator=generator, dtype=dtype) for shape in shapes]


def reference_resized(feature: Tensor, height: int, width: int, pooled: Pooled) -> Tensor:
    """Each axis for itself: averages where it shrinks, else the place that a new one falls in."""
    rows, columns = min(height, feature.shape[2]), min(width, feature.shape[3])
    small = torch.tensor(
        [[pooled(plane, rows, columns) for plane in sample] for sample in feature.tolist()],
        dtype=feature.dtype,
    ).view(*feature.shape[:2], rows, columns)
    said = torch.zeros(*feature.shape[:2], height, width, dtype=feature.dtype)
    for y in range(height):
        for x in range(width):
            said[:, :, y, x] = small[:, :, y * rows // height, x * columns // width]
    return said


def reference_hierarchical(student: Tensor, teacher: Tensor, pooled: Pooled) -> list[float]:
    """Level by level, with the averages of both maps."""
    values = []
    side = max(student.shape[2:])
    for own, other in zip(student.tolist(), teacher.tolist(), strict=True):
        sizes = [tuple(student.shape[2:])]
        levels = [level for level in (4, 2, 1) if level < side]
        sizes += [(min(level, student.shape[2]), min(level, student.shape[3])) for level in levels]
        total = weights = 0.0
        for number, (height, width) in enumerate(sizes):
            squares = [
                (a - b) ** 2
                for p, q in zip(own, other, strict=True)
                for a, b in zip(pooled(p, height, width), pooled(q, height, width), strict=True)
            ]
            total += 0.5**number * sum(squares) / len(squares)
            weights += 0.5**number
        values.append(total / weights)
    return values


def reference_review(
    module: Any, students: Sequence[Tensor], teachers: Sequence[Tensor], pooled: Pooled
) -> list[float]:
    """From the deepest layer on, step by step."""
    values = [0.0] * len(students[0])
    below: Tensor | None = None
    for fusion, student, teacher in zip(
        module.fusions[::-1], students[::-1], teachers[::-1], strict=True
    ):
        wanted = as_map(teacher)
        x = fusion.inward(as_map(student)).detach()
        if below is not None:
            y = reference_resized(below, x.shape[2], x.shape[3], pooled)
            weight, bias = fusion.attention.weight.detach(), fusion.attention.bias.detach()
            both = torch.cat([x, y], dim=1)
            scores = [
                sum(float(w) * both[:, c] for c, w in enumerate(weight[j, :, 0, 0])) + bias[j]
                for j in range(2)
            ]
            a, b = (1 / (1 + (-score).exp()) for score in scores)
            x = a.unsqueeze(1) * x + b.unsqueeze(1) * y
        below = reference_resized(x, wanted.shape[2], wanted.shape[3], pooled)
        said = fusion.outward(below).detach()
        layer = reference_hierarchical(said, wanted, pooled)
        values = [v + w for v, w in zip(values, layer, strict=True)]
    return values


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("own", "other"), CASES)
def test_it_is_the_papers_fusion_and_distance(
    own: Shapes, other: Shapes, training: bool, reference_pooled: Pooled
) -> None:
    students, teachers = features(own, 0), features(other, 1)
    module = ReviewKd().across(students, teachers).double().train(training)
    values = module(students, teachers)
    assert values.shape == (3,)
    expected = reference_review(module, students, teachers, reference_pooled)
    assert values.tolist() == pytest.approx(expected)


def test_the_levels_of_a_map() -> None:
    """Numbers by hand: a map of 8 x 8 with a checkerboard has no means."""
    module: Any = ReviewKd().across([torch.zeros(1, 1, 8, 8)], [torch.zeros(1, 1, 8, 8)])
    module.fusions[0].inward = nn.Identity()
    module.fusions[0].outward = nn.Identity()
    checkers = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(4, 4)[None, None]
    zeros = torch.zeros(1, 1, 8, 8)
    assert module([checkers], [zeros]).item() == pytest.approx(1 / (1 + 0.5 + 0.25 + 0.125))
    assert module([zeros + 2], [zeros]).item() == pytest.approx(4.0)


@pytest.mark.parametrize(("own", "other"), CASES)
def test_the_student_and_what_is_learned_receive_gradient_and_the_teacher_none(
    own: Shapes, other: Shapes
) -> None:
    students, teachers = features(own, 0), features(other, 1)
    module = ReviewKd().across(students, teachers).double()
    for feature in (*students, *teachers):
        feature.requires_grad_()
    # Not the plain sum: BatchNorm makes some of its directions vanish.
    (module(students, teachers) * torch.tensor([1.0, 2.0, 5.0])).sum().backward()
    for part in (*students, *module.parameters()):
        assert part.grad is not None
        assert (part.grad != 0).any()
    assert all(teacher.grad is None for teacher in teachers)


def test_every_layer_of_the_student_serves_the_shallower_ones() -> None:
    own, other = CASES[0]
    students, teachers = features(own, 0), features(other, 1)
    module: Any = ReviewKd().across(students, teachers).double().eval()
    deepest = students[-1].requires_grad_()
    module.fusions[-1].outward.requires_grad_(False)
    before = module(students, teachers)
    for fusion in module.fusions[1:]:
        nn.init.zeros_(fusion.outward[0].weight)
    (grad,) = torch.autograd.grad(module(students, teachers).sum(), deepest)
    assert (grad != 0).any()  # through the shallowest alone
    assert not torch.equal(before, module(students, teachers))


@pytest.mark.parametrize("kind", ["zeros", "constant", "huge"])
@pytest.mark.parametrize("b", [1, 2, 5])
@pytest.mark.parametrize(("own", "other"), CASES[:3])
def test_values_and_gradients_stay_finite(own: Shapes, other: Shapes, b: int, kind: str) -> None:
    students, teachers = features(own, 0, b, torch.float32), features(other, 1, b, torch.float32)
    change = {"zeros": (0.0, 0.0), "constant": (0.0, 0.7), "huge": (1e4, 0.0)}[kind]
    module = ReviewKd().across(students, teachers)
    odd = [(change[0] * feature + change[1]).requires_grad_() for feature in students]
    values = module(odd, [change[0] * feature + change[1] for feature in teachers])
    assert values.shape == (b,)
    assert torch.isfinite(values).all()
    values.sum().backward()
    assert all(f.grad is not None and torch.isfinite(f.grad).all() for f in odd)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_compared_in_single(dtype: torch.dtype) -> None:
    own, other = CASES[1]
    students = [f.to(dtype) for f in features(own, 0, 5, torch.float32)]
    teachers = [300 * f.to(dtype) for f in features(other, 1, 5, torch.float32)]
    module = ReviewKd().across(students, teachers)
    values = module(students, teachers)
    assert values.dtype == torch.float32
    wide = module([f.float() for f in students], [f.float() for f in teachers])
    assert torch.equal(values, wide)


def test_what_is_learned_is_a_state_and_a_trained_sample_is_its_own() -> None:
    students, teachers = features(CASES[1][0], 0), features(CASES[1][1], 1)
    module, other = (ReviewKd().across(students, teachers).double() for _ in range(2))
    module(students, teachers)
    other.load_state_dict(module.state_dict())
    values = module.eval()(students, teachers)
    assert torch.equal(values, other.eval()(students, teachers))
    alone = [
        module([f[i : i + 1] for f in students], [f[i : i + 1] for f in teachers])
        for i in (0, 1, 2)
    ]
    assert torch.cat(alone).tolist() == pytest.approx(values.tolist())


def test_fusions_have_the_channels_of_the_deepest_layer() -> None:
    module: Any = ReviewKd().across(*(features(shapes, 0) for shapes in CASES[0]))
    assert [fusion.inward[0].out_channels for fusion in module.fusions] == [5, 5, 5]
    wide = [torch.zeros(2, 3, 2, 2), torch.zeros(2, 700)]
    module = ReviewKd().across(wide, wide)
    assert [fusion.inward[0].out_channels for fusion in module.fusions] == [512, 512]


@pytest.mark.parametrize(
    ("own", "other", "words"),
    [
        ([(3, 4, 4)], [(3, 4, 4), (3,)], "teachers must name 1 layers like the student, got 2"),
        ([(5, 4)], [(3, 4, 4)], r"must be maps \(d, h, w\) or vectors \(d,\), got \(5, 4\)"),
        ([(3, 4, 4)], [(5, 4)], r"must be maps \(d, h, w\) or vectors \(d,\), got \(5, 4\)"),
    ],
)
def test_layers_that_cannot_be_reviewed(own: Shapes, other: Shapes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ReviewKd().across(features(own, 0), features(other, 1))


def test_a_student_follows_its_teacher() -> None:
    def trained(*overrides: str) -> tuple[list[float], dict[str, Tensor]]:
        plan = make_plan(
            compose(
                [
                    "objective=reviewkd",
                    "teacher.members=[cnn_small]",
                    "teacher.epochs=2",
                    "epochs=3",
                    "controls=[]",
                    *overrides,
                ]
            )
        )
        product = Engine(plan, Store(Path("store")), Path("run"), logger=False).products()[
            "student"
        ]
        points = read_points(product.artefact.folder / CURVES)
        curve = [point.value for point in points if point.name == "student/reviewkd"]
        return curve, dict(product.learner.student.state_dict())

    values, mine = trained()
    assert math.isfinite(values[0])
    assert values[-1] < 0.8 * values[0]
    _, other = trained("objective.feature_weight=0")
    assert any(not torch.equal(mine[name], other[name]) for name in mine)
