"""Attention over pairs of layers, projections, and the weighted distance."""

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
from ensemble_kd.objectives import SemCkd
from ensemble_kd.objectives.reviewkd import as_map
from ensemble_kd.plan import make_plan
from ensemble_kd.report.curves import read_points
from ensemble_kd.store import Store

Shapes = list[tuple[int, ...]]
Pooled = Callable[[list[list[float]], int, int], list[float]]
CASES: list[tuple[Shapes, Shapes]] = [
    ([(3, 4, 4), (4, 2, 2)], [(2, 4, 4), (3, 2, 2)]),
    ([(3, 4, 4)], [(2, 4, 3), (3, 2, 2), (4,)]),
    ([(3, 3, 5), (4, 2, 2), (5,)], [(2, 4, 4)]),
    ([(3,), (4,)], [(2,), (3,)]),
]


def features(
    shapes: Shapes, seed: int, b: int = 5, dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(b, *shape, generator=generator, dtype=dtype) for shape in shapes]


def reference_embedded(perceptron: Any, features: Tensor, samples: int) -> list[list[float]]:
    """Of each sample, the vector that comes of its products with those of its part."""
    said = []
    rows = features.flatten(1).tolist()
    first, second = perceptron[0], perceptron[2]
    for i, own in enumerate(rows):
        start = i // samples * samples
        part = rows[start : start + samples]
        products = [sum(a * b for a, b in zip(own, other, strict=True)) for other in part]
        products += [0.0] * (samples - len(part))
        hidden = [
            max(0.0, sum(w * p for w, p in zip(row, products, strict=True)) + bias)
            for row, bias in zip(first.weight.tolist(), first.bias.tolist(), strict=True)
        ]
        out = [
            sum(w * h for w, h in zip(row, hidden, strict=True)) + bias
            for row, bias in zip(second.weight.tolist(), second.bias.tolist(), strict=True)
        ]
        length = math.sqrt(sum(value**2 for value in out))
        said.append([value / length for value in out])
    return said


def reference_semckd(
    module: Any, students: Sequence[Tensor], teachers: Sequence[Tensor], pooled: Pooled
) -> list[float]:
    """Pair by pair and place by place."""
    samples = module.samples
    queries = [
        reference_embedded(q, s, samples) for q, s in zip(module.queries, students, strict=True)
    ]
    keys = [reference_embedded(k, t, samples) for k, t in zip(module.keys, teachers, strict=True)]
    values = [0.0] * len(students[0])
    for i, student in enumerate(map(as_map, students)):
        distances = []
        for j, teacher in enumerate(map(as_map, teachers)):
            size = [min(a, b) for a, b in zip(student.shape[2:], teacher.shape[2:], strict=True)]
            own, other = (
                torch.tensor(
                    [[pooled(plane, *size) for plane in each] for each in feature.tolist()]
                )
                for feature in (student, teacher)
            )
            mapped = module.projections[i][j](own.double().view(*own.shape[:2], *size)).flatten(1)
            difference = mapped.detach() - other.flatten(1)
            distances.append([sum(x**2 for x in row) / len(row) for row in difference.tolist()])
        for n in range(len(values)):
            energies = [
                math.exp(sum(a * b for a, b in zip(queries[i][n], key[n], strict=True)))
                for key in keys
            ]
            shares = [energy / sum(energies) for energy in energies]
            values[n] += sum(a * d[n] for a, d in zip(shares, distances, strict=True)) / len(
                students
            )
    return values


@pytest.mark.parametrize("samples", [2, 5, 8])
@pytest.mark.parametrize(("own", "other"), CASES)
def test_it_is_the_papers_equation(
    own: Shapes, other: Shapes, samples: int, reference_pooled: Pooled
) -> None:
    torch.manual_seed(0)
    students, teachers = features(own, 0), features(other, 1)
    module = SemCkd(samples).across(students, teachers).double()
    values = module(students, teachers)
    assert values.shape == (5,)
    expected = reference_semckd(module, students, teachers, reference_pooled)
    assert values.tolist() == pytest.approx(expected, rel=1e-5)


def test_attention_is_a_share_for_each_layer_of_the_teacher() -> None:
    students, teachers = features(CASES[0][0], 0), features(CASES[0][1], 1)
    module: Any = SemCkd(8).across(students, teachers).double()
    shares = module.attention(students, teachers)
    assert shares.shape == (5, 2, 2)
    assert torch.allclose(shares.sum(dim=2), torch.ones(5, 2, dtype=torch.float64))
    # With one layer of the teacher there is nothing to choose.
    module = SemCkd(8).across(students, teachers[:1]).double()
    assert torch.equal(module.attention(students, teachers[:1]), torch.ones(5, 2, 1).double())


@pytest.mark.parametrize(("own", "other"), CASES)
def test_the_student_and_what_is_learned_receive_gradient_and_the_teacher_none(
    own: Shapes, other: Shapes
) -> None:
    torch.manual_seed(0)
    students, teachers = features(own, 0), features(other, 1)
    module: Any = SemCkd(8).across(students, teachers).double()
    for feature in (*students, *teachers):
        feature.requires_grad_()
    (module(students, teachers) * torch.arange(1.0, 6.0)).sum().backward()
    chosen = len(teachers) > 1
    for part in (*students, *module.projections.parameters()):
        assert part.grad is not None
        assert (part.grad != 0).any()
    for perceptron in (*module.queries, *module.keys):
        gradients = [p.grad for p in perceptron.parameters()]
        assert any(g is not None and (g.abs() > 1e-12).any() for g in gradients) is chosen
    assert all(teacher.grad is None for teacher in teachers)


def test_attention_learns_which_layer_is_to_be_followed() -> None:
    torch.manual_seed(0)
    students = features([(3, 4, 4)], 0, 16, torch.float32)
    # The first layer of the teacher is a map of the student's, the second is noise.
    mixing = torch.randn(4, 3)
    follow = torch.einsum("dc, bchw -> bdhw", mixing, students[0])
    teachers = [follow, 3 * torch.randn(16, 4, 4, 4)]
    module: Any = SemCkd(16).across(students, teachers)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    seen = []
    for _ in range(60):
        loss = module(students, teachers).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(loss.item())
    assert seen[-1] < 0.6 * seen[0]
    assert (module.attention(students, teachers)[:, 0, 0] > 0.8).all()


@pytest.mark.parametrize("kind", ["zeros", "constant", "huge"])
@pytest.mark.parametrize("b", [1, 2, 5])
@pytest.mark.parametrize(("own", "other"), CASES[:3])
def test_values_and_gradients_stay_finite(own: Shapes, other: Shapes, b: int, kind: str) -> None:
    students, teachers = features(own, 0, b, torch.float32), features(other, 1, b, torch.float32)
    change = {"zeros": (0.0, 0.0), "constant": (0.0, 0.7), "huge": (1e4, 0.0)}[kind]
    module = SemCkd(4).across(students, teachers)
    odd = [(change[0] * feature + change[1]).requires_grad_() for feature in students]
    values = module(odd, [change[0] * feature + change[1] for feature in teachers])
    assert values.shape == (b,)
    assert torch.isfinite(values).all()
    values.sum().backward()
    assert all(f.grad is not None and torch.isfinite(f.grad).all() for f in odd)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_compared_in_single(dtype: torch.dtype) -> None:
    own, other = CASES[0]
    students = [f.to(dtype) for f in features(own, 0, 5, torch.float32)]
    teachers = [300 * f.to(dtype) for f in features(other, 1, 5, torch.float32)]
    module = SemCkd(8).across(students, teachers)
    values = module(students, teachers)
    assert values.dtype == torch.float32
    wide = module([f.float() for f in students], [f.float() for f in teachers])
    assert torch.equal(values, wide)


def test_parts_of_a_batch_do_not_see_each_other() -> None:
    students, teachers = features(CASES[0][0], 0, 7), features(CASES[0][1], 1, 7)
    module = SemCkd(4).across(students, teachers).double().eval()
    whole = module(students, teachers)
    parts = [
        module([f[part] for f in students], [f[part] for f in teachers])
        for part in (slice(0, 4), slice(4, 7))
    ]
    assert torch.cat(parts).tolist() == pytest.approx(whole.tolist())
    state = module.state_dict()
    other = SemCkd(4).across(students, teachers).double().eval()
    other.load_state_dict(state)
    assert torch.equal(other(students, teachers), whole)


def test_the_sizes_of_what_is_learned() -> None:
    module: Any = SemCkd(64).across(*(features(shapes, 0) for shapes in CASES[2]))
    assert [p[0].in_features for p in (*module.queries, *module.keys)] == [64] * 4
    assert [(p[0].out_features, p[2].out_features) for p in module.queries] == [(32, 16)] * 3
    widths = [
        [m.out_channels for m in row[0] if isinstance(m, nn.Conv2d)] for row in module.projections
    ]
    assert widths == [[4, 4, 2]] * 3


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="samples must be at least 1, got 0"):
        SemCkd(0)
    with pytest.raises(
        ValueError, match=r"must be maps \(d, h, w\) or vectors \(d,\), got \(5, 4\)"
    ):
        SemCkd().across(features([(5, 4)], 0), features([(3,)], 1))


def test_a_student_follows_its_teacher() -> None:
    def trained(*overrides: str) -> tuple[list[float], dict[str, Tensor]]:
        plan = make_plan(
            compose(
                [
                    "objective=semckd",
                    "objective.teacher_layers=[stages.0,stages.1,pool]",
                    "teacher.members=[cnn_small]",
                    "teacher.epochs=2",
                    "epochs=2",
                    "controls=[]",
                    *overrides,
                ]
            )
        )
        product = Engine(plan, Store(Path("store")), Path("run"), logger=False).products()[
            "student"
        ]
        points = read_points(product.artefact.folder / CURVES)
        curve = [point.value for point in points if point.name == "student/semckd"]
        return curve, dict(product.learner.student.state_dict())

    values, mine = trained()
    assert values[-1] < 0.8 * values[0]
    _, other = trained("objective.feature_weight=0")
    assert any(not torch.equal(mine[name], other[name]) for name in mine)
