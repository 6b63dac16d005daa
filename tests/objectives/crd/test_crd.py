"""Contrasts with samples of other classes: values, gradients, mistakes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ensemble_kd.objectives import Crd
from ensemble_kd.types import UNLABELLED, Batch, Output, Progress
from ensemble_kd.weightings.draws import draws


def at(step: int) -> Progress:
    return Progress(step, 0, 0.0)


def uniform(m: int, b: int) -> Tensor:
    return torch.full((m, b), 1 / m, dtype=torch.float64)


def embedded(linear: nn.Linear, feature: Tensor) -> list[float]:
    """The vector of one sample, of unit length."""
    values = [
        sum(w * float(x) for w, x in zip(row, feature.detach(), strict=True)) + bias
        for row, bias in zip(linear.weight.tolist(), linear.bias.tolist(), strict=True)
    ]
    length = math.sqrt(sum(value**2 for value in values))
    return [value / length for value in values]


def reference_crd(
    crd: Crd, student: Tensor, teachers: list[Tensor], weights: Tensor, batch: Batch, step: int
) -> list[float]:
    """Sample by sample, negative by negative, with probabilities and not their logarithms."""
    memory = crd.memory
    numbers, labels = memory.numbers.tolist(), memory.labels.tolist()
    n = len(numbers)
    order = draws(crd.seed, step, (n,)).argsort().tolist()
    values = [0.0] * len(batch.index)
    for k, teacher in enumerate(teachers):
        heads: Any = crd.heads[k]
        for bank, linear, features in (
            (memory.vectors[2 * k + 1], heads.student, student),
            (memory.vectors[2 * k], heads.teacher, teacher),
        ):
            raw: list[list[float]] = []
            for i, number in enumerate(batch.index.tolist()):
                row = numbers.index(number)
                others = [
                    j
                    for j in order
                    if (labels[row] == UNLABELLED and j != row)
                    or (labels[row] != UNLABELLED and labels[j] not in (UNLABELLED, labels[row]))
                ][: crd.count]
                x = embedded(linear, features[i])
                raw.append(
                    [
                        math.exp(
                            sum(a * float(y) for a, y in zip(x, bank[j], strict=True))
                            / crd.temperature
                        )
                        for j in [row, *others]
                    ]
                )
            if crd.begun:
                z = math.exp(float(crd.log_z[k, 0 if linear is heads.student else 1]))
            else:
                z = n * sum(sum(each) for each in raw) / sum(len(each) for each in raw)
            for i, each in enumerate(raw):
                noise = (len(each) - 1) / n
                p = [score / z for score in each]
                value = -math.log(p[0] / (p[0] + noise))
                value -= sum(math.log(noise / (q + noise)) for q in p[1:])
                values[i] += float(weights[k, i]) * value
    return values


@pytest.mark.parametrize("temperature", [0.07, 1.0])
@pytest.mark.parametrize("negatives", [1, 2, 4, 16384])
@pytest.mark.parametrize("teachers", [1, 2])
def test_it_is_the_papers_equation(
    data: Any, teachers: int, negatives: int, temperature: float
) -> None:
    crd = data.made(data.sizes[:teachers], negatives=negatives, temperature=temperature)
    for step, rows in enumerate(([0, 1, 3, 4, 6], [7], [2, 5, 6, 1])):
        student, taught = data.voices(rows, seed=step, sizes=data.sizes[:teachers])
        batch, weights = data.some(rows), torch.rand(teachers, len(rows), dtype=torch.float64)
        values = crd(student, taught, weights, batch, at(step))
        expected = reference_crd(
            crd,
            student.features["a"],
            [each.features["a"] for each in taught],
            weights,
            batch,
            step,
        )
        assert values.tolist() == pytest.approx(expected, rel=1e-9)
        crd.settle()


def test_the_constants_stay_those_of_the_first_batch(data: Any) -> None:
    crd = data.made()
    assert not crd.begun
    crd(*data.voices(range(8)), uniform(2, 8), data.some(range(8)), at(0))
    assert not crd.begun
    crd.settle()
    assert crd.begun
    before = crd.log_z.clone()
    assert len(before.unique()) == 4
    crd(*data.voices(range(8), seed=3), uniform(2, 8), data.some(range(8)), at(1))
    crd.settle()
    assert torch.equal(crd.log_z, before)


def test_student_and_heads_receive_gradient_and_the_teacher_none(data: Any) -> None:
    crd = data.made()
    student, taught = data.voices(range(8))
    own, other = student.features["a"].requires_grad_(), taught[0].features["a"].requires_grad_()
    weights = uniform(2, 8).requires_grad_()
    crd(student, taught, weights, data.some(range(8)), at(0)).sum().backward()
    for part in (own, weights, *crd.parameters()):
        assert part.grad is not None
        assert (part.grad != 0).any()
    assert len(list(crd.parameters())) == 8
    assert other.grad is None
    assert not crd.memory.vectors.requires_grad
    crd.settle()  # of the first batch, the constants would move with the feature

    def value(feature: Tensor) -> Tensor:
        said: Tensor = crd(
            Output(student.logits, {"a": feature}),
            taught,
            uniform(2, 8),
            data.some(range(8)),
            at(0),
        )
        return said

    assert torch.autograd.gradcheck(value, own)


def test_descent_tells_samples_from_each_other(data: Any) -> None:
    crd = data.made()
    student, taught = data.voices(range(8))
    optimizer = torch.optim.Adam(crd.parameters(), lr=0.02)
    seen = []
    for step in range(150):
        loss = crd(student, taught, uniform(2, 8), data.some(range(8)), at(step)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        crd.settle()
        seen.append(loss.item())
    assert seen[-1] < 0.7 * seen[0]
    rows, _ = crd.memory.find(data.numbers)
    own, other = crd.memory.vectors[0, rows], crd.memory.vectors[1, rows]
    likeness = own @ other.mT
    unlike = (
        (data.labels[:, None] != data.labels) & (data.labels[:, None] >= 0) & (data.labels >= 0)
    )
    assert likeness.diagonal().mean() > likeness[unlike].mean() + 0.5


@pytest.mark.parametrize("kind", ["zeros", "constant", "huge"])
@pytest.mark.parametrize("rows", [[0], [3], [0, 1, 2, 3, 4, 5, 6, 7]])
def test_values_and_gradients_stay_finite(data: Any, rows: list[int], kind: str) -> None:
    crd = data.made().float()
    student, taught = data.voices(rows, dtype=torch.float32)
    plain = student.features["a"]
    odd = {"zeros": 0 * plain, "constant": 0 * plain + 0.7, "huge": 1e4 * plain}[kind]
    feature = odd.clone().requires_grad_()
    said = Output(student.logits, {"a": feature})
    taught = tuple(Output(t.logits, {"a": odd[:, : t.features["a"].shape[1]]}) for t in taught)
    for step in range(3):
        values = crd(said, taught, uniform(2, len(rows)).float(), data.some(rows), at(step))
        assert values.shape == (len(rows),)
        assert torch.isfinite(values).all()
        values.sum().backward()
        crd.settle()
    assert feature.grad is not None
    assert (feature.grad.abs() < 1e6).all()
    assert torch.isfinite(crd.memory.vectors).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_compared_in_single(data: Any, dtype: torch.dtype) -> None:
    crd = data.made().float()
    student, taught = (
        data.voices(range(8), dtype=torch.float32)[0],
        data.voices(range(8), dtype=torch.float32)[1],
    )
    halves = [
        Output(each.logits, {"a": each.features["a"].to(dtype)}) for each in (student, *taught)
    ]
    weights = uniform(2, 8).float()
    values = crd(halves[0], tuple(halves[1:]), weights, data.some(range(8)), at(0))
    assert values.dtype == torch.float32
    wide = [Output(each.logits, {"a": each.features["a"].float()}) for each in halves]
    assert torch.equal(values, crd(wide[0], tuple(wide[1:]), weights, data.some(range(8)), at(0)))


def test_maps_and_sequences_are_averaged_over_their_places(data: Any) -> None:
    crd = data.made(((4, 3, 2), (5, 4)))
    student, taught = data.voices(range(8), sizes=((4, 3, 2), (5, 4)))
    values = crd(student, taught, uniform(2, 8), data.some(range(8)), at(0))
    pooled = (
        Output(taught[0].logits, {"a": taught[0].features["a"].mean(dim=(2, 3))}),
        Output(taught[1].logits, {"a": taught[1].features["a"].mean(dim=1)}),
    )
    assert torch.allclose(values, crd(student, pooled, uniform(2, 8), data.some(range(8)), at(0)))


def test_voices_that_it_does_not_know(data: Any) -> None:
    crd = data.made()
    student, taught = data.voices(range(8))
    with pytest.raises(ValueError, match="the 2 frozen teachers that were met, got 1 voices"):
        crd(student, taught[:1], uniform(1, 8), data.some(range(8)), at(0))
    with pytest.raises(ValueError, match="the student gave no feature 'a'"):
        crd(Output(student.logits), taught, uniform(2, 8), data.some(range(8)), at(0))
    with pytest.raises(ValueError, match=r"weights must have the shape \(teachers, samples\)"):
        crd(student, taught, uniform(2, 7), data.some(range(8)), at(0))
    fresh = Crd(["a"], ["a"])
    fresh.meet(student, taught)
    with pytest.raises(ValueError, match="look at the training data before"):
        fresh(student, taught, uniform(2, 8), data.some(range(8)), at(0))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"student": ["a", "b"]}, r"student must name one layer, got \['a', 'b'\]"),
        ({"teachers": [["a"], ["a", "b"]]}, r"must name 1 layers like the student, got \['a', 'b'"),
        ({"size": 0}, "size must be at least 1, got 0"),
        ({"negatives": 0}, "negatives must be at least 1, got 0"),
        ({"temperature": 0.0}, "temperature must be a finite number > 0, got 0.0"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1.0"),
    ],
)
def test_arguments_out_of_range(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Crd(**{"student": ["a"], "teachers": ["a"], **arguments})


def test_a_picture_of_unknown_shape_is_refused(data: Any) -> None:
    student, taught = data.voices(range(8), sizes=((2, 2, 2, 2),))
    with pytest.raises(ValueError, match=r"features must be maps .* got \(2, 2, 2, 2\)"):
        Crd(["a"], ["a"]).meet(student, taught)
