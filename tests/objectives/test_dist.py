from __future__ import annotations

import math
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from ensemble_kd.functional import Merge
from ensemble_kd.objectives import Dist, Term
from ensemble_kd.schedules import Linear
from ensemble_kd.types import UNLABELLED, Batch, Output, Progress

PROGRESS = Progress(0, 0, 0.0)
MERGES: tuple[Merge, ...] = get_args(Merge)
SHAPES = [(4,), (2, 3)]


def said(
    seed: int, members: int, shape: tuple[int, ...] = (4,), classes: int = 5
) -> tuple[Output, tuple[Output, ...], Tensor, Batch]:
    """Student, teachers, weights and batch, in float64."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(members + 1, *shape, classes, generator=generator, dtype=torch.float64)
    weights = torch.rand(members, *shape, generator=generator, dtype=torch.float64)
    batch = Batch(None, torch.full(shape, UNLABELLED), torch.arange(shape[0]))
    student = Output(logits[0].clone().requires_grad_())
    return student, tuple(Output(z) for z in logits[1:]), weights / weights.sum(0), batch


def reference_softmax(logits: list[float], temperature: float) -> list[float]:
    powers = [math.exp(z / temperature) for z in logits]
    return [power / math.fsum(powers) for power in powers]


def reference_pearson(x: list[float], y: list[float]) -> float:
    mean_x, mean_y = (math.fsum(v) / len(v) for v in (x, y))
    both = math.fsum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    size_x = math.sqrt(math.fsum((a - mean_x) ** 2 for a in x))
    size_y = math.sqrt(math.fsum((b - mean_y) ** 2 for b in y))
    return both / (size_x * size_y)


def reference_dist(
    p: list[list[float]], q: list[list[float]], beta: float, gamma: float
) -> list[float]:
    """Each sample's inter value plus the intra value of all, from rows of probabilities."""
    classes = range(len(q[0]))
    intra = math.fsum(
        1 - reference_pearson([row[c] for row in p], [row[c] for row in q]) for c in classes
    ) / len(classes)
    return [beta * (1 - reference_pearson(a, b)) + gamma * intra for a, b in zip(p, q, strict=True)]


def reference_targets(
    teachers: list[list[list[float]]], weights: list[list[float]], temperature: float, merge: Merge
) -> list[tuple[list[float], list[list[float]]]]:
    """Rows of probabilities that the student's are compared with, and the weight of each row."""
    samples, classes = range(len(teachers[0])), range(len(teachers[0][0]))
    if merge == "logits":
        mean = [
            [
                math.fsum(w[i] * z[i][c] for w, z in zip(weights, teachers, strict=True))
                for c in classes
            ]
            for i in samples
        ]
        return [([1.0 for _ in samples], [reference_softmax(z, temperature) for z in mean])]
    each = [[reference_softmax(z, temperature) for z in rows] for rows in teachers]
    if merge == "losses":
        return list(zip(weights, each, strict=True))
    mean = [
        [math.fsum(w[i] * p[i][c] for w, p in zip(weights, each, strict=True)) for c in classes]
        for i in samples
    ]
    return [([1.0 for _ in samples], mean)]


@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_it_is_the_definition(
    merge: Merge, shape: tuple[int, ...], classes: int, members: int, temperature: float
) -> None:
    student, teachers, weights, batch = said(members, members, shape, classes)
    got = Dist(0.7, 3.0, temperature, merge)(student, teachers, weights, batch, PROGRESS)
    own = student.logits.detach().flatten(0, -2).tolist()
    q = [reference_softmax(z, temperature) for z in own]
    taught = torch.stack([teacher.logits for teacher in teachers]).flatten(1, -2).tolist()
    want = [0.0 for _ in q]
    for w, p in reference_targets(taught, weights.flatten(1).tolist(), temperature, merge):
        for i, value in enumerate(reference_dist(p, q, 0.7, 3.0)):
            want[i] += temperature**2 * w[i] * value
    assert got.shape == shape
    assert got.flatten().tolist() == pytest.approx(want, rel=1e-8, abs=1e-10)


def test_the_mean_over_the_batch_is_the_published_loss() -> None:
    student, teachers, _, batch = said(1, 1, (8,))
    term = Term(Dist(2.0, 3.0, 4.0))
    got = term(student, teachers, torch.ones(1, 8, dtype=torch.float64), batch, PROGRESS)
    q, p = ((z.logits.detach() / 4).softmax(-1) for z in (student, teachers[0]))
    inter = torch.stack(
        [torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(q, p, strict=True)]
    )
    intra = torch.stack(
        [torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(q.T, p.T, strict=True)]
    )
    want = 16 * (2 * (1 - inter.mean()) + 3 * (1 - intra.mean()))
    assert got.item() == pytest.approx(want.item())


@pytest.mark.parametrize(("factor", "shift"), [(0.5, 0.0), (0.2, 0.16), (0.01, 0.198)])
def test_a_factor_and_a_shift_of_the_probabilities_do_not_matter(
    factor: float, shift: float
) -> None:
    """factor * p + shift is a distribution again for shift = (1 - factor) / c."""
    student, teachers, weights, batch = said(2, 1)
    shift = shift or (1 - factor) / 5
    assert factor + 5 * shift == pytest.approx(1)
    p = teachers[0].logits.softmax(-1)
    like = Output((factor * p + shift).log())
    torch.testing.assert_close(
        Dist()(student, (like,), weights, batch, PROGRESS),
        Dist()(student, teachers, weights, batch, PROGRESS),
    )
    values = Dist()(like, teachers, weights, batch, PROGRESS)
    torch.testing.assert_close(values, torch.zeros_like(values))


def test_the_intra_part_is_the_same_number_for_all_samples() -> None:
    student, teachers, weights, batch = said(3, 1)
    values = Dist(0.0, 1.0)(student, teachers, weights, batch, PROGRESS)
    torch.testing.assert_close(values, values[:1].expand(4))


def test_the_inter_part_is_of_the_sample_alone() -> None:
    student, teachers, weights, batch = said(4, 2)
    together = Dist(1.0, 0.0)(student, teachers, weights, batch, PROGRESS)
    first = Output(student.logits[:2]), tuple(Output(z.logits[:2]) for z in teachers)
    half = batch._replace(target=batch.target[:2], index=batch.index[:2])
    torch.testing.assert_close(Dist(1.0, 0.0)(*first, weights[:, :2], half, PROGRESS), together[:2])


def test_the_intra_part_pulls_at_every_sample() -> None:
    student, teachers, weights, batch = said(5, 1)
    value = Dist(0.0, 1.0)(student, teachers, weights, batch, PROGRESS)[0]
    (gradient,) = torch.autograd.grad(value, student.logits)
    assert (gradient.abs().sum(-1) > 0).all()


def test_one_sample_has_no_intra_part() -> None:
    student, teachers, weights, batch = said(6, 2, (1,))
    values = Dist(0.0, 1.0, 3.0)(student, teachers, weights, batch, PROGRESS)
    assert values.tolist() == pytest.approx([9.0])
    (gradient,) = torch.autograd.grad(values.sum(), student.logits)
    assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("merge", MERGES)
def test_who_receives_gradient(merge: Merge) -> None:
    """The student and the weights; the teachers never, even if they could."""
    student, teachers, weights, batch = said(5, 3)
    teachers = tuple(Output(teacher.logits.requires_grad_()) for teacher in teachers)
    weights.requires_grad_()
    torch.autograd.backward(Dist(merge=merge)(student, teachers, weights, batch, PROGRESS).sum())
    assert student.logits.grad is not None
    assert student.logits.grad.abs().sum() > 0
    assert weights.grad is not None
    assert weights.grad.abs().sum() > 0
    assert all(teacher.logits.grad is None for teacher in teachers)


@pytest.mark.parametrize("merge", MERGES)
def test_the_gradient_is_the_numerical_one(merge: Merge) -> None:
    student, teachers, weights, batch = said(6, 2)
    weights.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z, w: Dist(merge=merge)(Output(z), teachers, w, batch, PROGRESS),
        (student.logits, weights),
    )


@pytest.mark.parametrize("merge", MERGES)
def test_a_sample_without_a_teacher_is_zero(merge: Merge) -> None:
    student, teachers, weights, batch = said(7, 3)
    weights[:, 1] = 0
    values = Dist(merge=merge)(student, teachers, weights, batch, PROGRESS)
    assert values[1] == 0
    assert (values[[0, 2, 3]] > 0).all()
    alone = Dist(1.0, 0.0, merge=merge)(student, teachers, weights, batch, PROGRESS)
    (gradient,) = torch.autograd.grad(alone.sum(), student.logits)
    assert (gradient[1] == 0).all()


@pytest.mark.parametrize("merge", MERGES)
def test_identical_teachers_are_one_teacher(merge: Merge) -> None:
    student, teachers, weights, batch = said(8, 3)
    objective = Dist(merge=merge)
    one = torch.ones(1, 4, dtype=torch.float64)
    many = objective(student, teachers[:1] * 3, weights, batch, PROGRESS)
    single = objective(student, teachers[:1], one, batch, PROGRESS)
    torch.testing.assert_close(many, single)
    torch.testing.assert_close(
        torch.autograd.grad(many.sum(), student.logits),
        torch.autograd.grad(single.sum(), student.logits),
    )


@pytest.mark.parametrize("merge", MERGES)
def test_a_student_like_its_teachers_has_nothing_to_learn(merge: Merge) -> None:
    student, _, weights, batch = said(9, 3)
    same = (Output(student.logits.detach()),) * 3
    values = Dist(merge=merge)(student, same, weights, batch, PROGRESS)
    (gradient,) = torch.autograd.grad(values.sum(), student.logits)
    torch.testing.assert_close(values, torch.zeros_like(values))
    torch.testing.assert_close(gradient, torch.zeros_like(gradient))


def test_the_temperature_can_be_a_schedule() -> None:
    student, teachers, weights, batch = said(10, 2)
    objective = Dist(temperature=Linear(4.0, 1.0))
    for fraction, temperature in ((0.0, 4.0), (0.5, 2.5), (1.0, 1.0)):
        torch.testing.assert_close(
            objective(student, teachers, weights, batch, Progress(0, 0, fraction)),
            Dist(temperature=temperature)(student, teachers, weights, batch, PROGRESS),
        )


@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_degenerate_logits_are_finite(
    merge: Merge, dtype: torch.dtype, classes: int, batch_size: int
) -> None:
    """Every pair of sure, opposite and constant logits, alone and in a batch."""
    rows = [[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0], [0.0, 0.0, 0.0], [1e4, 1e4, -1e4]]
    weights = torch.full((2, batch_size), 0.5)
    for turn in range(4):
        for start in range(4):
            table = torch.tensor(rows, dtype=dtype)[:, :classes].roll(start, 0)
            own = table[:batch_size].clone().requires_grad_()
            teachers = tuple(Output(table.roll(turn * k, 0)[:batch_size]) for k in (1, 2))
            batch = Batch(None, torch.zeros(batch_size, dtype=torch.long), torch.arange(batch_size))
            values = Dist(merge=merge)(Output(own), teachers, weights, batch, PROGRESS)
            assert values.dtype == torch.float32
            assert values.isfinite().all()
            (gradient,) = torch.autograd.grad(values.sum(), own)
            assert gradient.dtype == dtype
            assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single_precision(dtype: torch.dtype) -> None:
    student, teachers, weights, batch = said(11, 3)
    low = tuple(Output(z.logits.to(dtype)) for z in (student, *teachers))
    high = tuple(Output(z.logits.float()) for z in low)
    values = Dist()(low[0], low[1:], weights.float(), batch, PROGRESS)
    assert values.dtype == torch.float32
    assert torch.equal(values, Dist()(high[0], high[1:], weights.float(), batch, PROGRESS))


def test_what_it_needs() -> None:
    assert Dist.needs_labels is False
    assert Dist.needs_teachers


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": 0.0}, "temperature must be a positive finite number, got 0.0"),
        ({"temperature": math.nan}, "temperature must be a positive finite number, got nan"),
        ({"merge": "mean"}, "merge must be one of losses, probabilities, logits, got 'mean'"),
        ({"beta": -1.0}, "beta must be a finite number >= 0, got -1.0"),
        ({"gamma": math.inf}, "gamma must be a finite number >= 0, got inf"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Dist(**arguments)


def test_what_does_not_fit_is_refused() -> None:
    student, teachers, weights, batch = said(12, 2)
    with pytest.raises(ValueError, match="at least one teacher, got none"):
        Dist()(student, (), weights[:0], batch, PROGRESS)
    with pytest.raises(ValueError, match=r"teacher 0 must have the student's shape \(4, 5\)"):
        Dist()(student, (Output(torch.zeros(4, 6)),) * 2, weights, batch, PROGRESS)
    with pytest.raises(ValueError, match=r"\(teachers, samples\) \(2, 4\), got \(1, 4\)"):
        Dist()(student, teachers, weights[:1], batch, PROGRESS)
