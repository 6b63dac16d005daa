from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from ensemble_kd.functional import Merge
from ensemble_kd.objectives import Dist, Term
from ensemble_kd.types import Batch, Output, Progress

Said = Callable[..., tuple[Output, tuple[Output, ...], Tensor, Batch]]
Case = tuple[tuple[Output, tuple[Output, ...], Tensor, Batch], float, Merge]
Compared = Callable[..., list[list[tuple[float, list[float], list[float]]]]]
PROGRESS = Progress(0, 0, 0.0)
MERGES: tuple[Merge, ...] = get_args(Merge)


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


def test_it_is_the_definition(case: Case, reference_compared: Compared) -> None:
    (student, teachers, weights, batch), temperature, merge = case
    got = Dist(0.7, 3.0, temperature, merge)(student, teachers, weights, batch, PROGRESS)
    logits = [teacher.logits for teacher in teachers]
    samples = reference_compared(student.logits, logits, weights, temperature, merge)
    want = [0.0 for _ in samples]
    for rows in zip(*samples, strict=True):  # one target of every sample
        values = reference_dist([p for _, p, _ in rows], [q for _, _, q in rows], 0.7, 3.0)
        for i, (w, _, _) in enumerate(rows):
            want[i] += temperature**2 * w * values[i]
    assert got.shape == batch.target.shape
    assert got.flatten().tolist() == pytest.approx(want, rel=1e-8, abs=1e-10)


def test_the_mean_over_the_batch_is_the_published_loss(said: Said) -> None:
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
    said: Said, factor: float, shift: float
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


def test_the_intra_part_is_the_same_number_for_all_samples(said: Said) -> None:
    student, teachers, weights, batch = said(3, 1)
    values = Dist(0.0, 1.0)(student, teachers, weights, batch, PROGRESS)
    torch.testing.assert_close(values, values[:1].expand(4))


def test_the_inter_part_is_of_the_sample_alone(said: Said) -> None:
    student, teachers, weights, batch = said(4, 2)
    together = Dist(1.0, 0.0)(student, teachers, weights, batch, PROGRESS)
    first = Output(student.logits[:2]), tuple(Output(z.logits[:2]) for z in teachers)
    half = batch._replace(target=batch.target[:2], index=batch.index[:2])
    torch.testing.assert_close(Dist(1.0, 0.0)(*first, weights[:, :2], half, PROGRESS), together[:2])


def test_the_intra_part_pulls_at_every_sample(said: Said) -> None:
    student, teachers, weights, batch = said(5, 1)
    value = Dist(0.0, 1.0)(student, teachers, weights, batch, PROGRESS)[0]
    (gradient,) = torch.autograd.grad(value, student.logits)
    assert (gradient.abs().sum(-1) > 0).all()


def test_one_sample_has_no_intra_part(said: Said) -> None:
    student, teachers, weights, batch = said(6, 2, (1,))
    values = Dist(0.0, 1.0, 3.0)(student, teachers, weights, batch, PROGRESS)
    assert values.tolist() == pytest.approx([9.0])
    (gradient,) = torch.autograd.grad(values.sum(), student.logits)
    assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("merge", MERGES)
def test_a_sample_without_a_teacher_is_not_pulled_by_the_inter_part(
    said: Said, merge: Merge
) -> None:
    student, teachers, weights, batch = said(7, 3)
    weights[:, 1] = 0
    alone = Dist(1.0, 0.0, merge=merge)(student, teachers, weights, batch, PROGRESS)
    (gradient,) = torch.autograd.grad(alone.sum(), student.logits)
    assert (gradient[1] == 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"beta": -1.0}, "beta must be a finite number >= 0, got -1.0"),
        ({"gamma": math.inf}, "gamma must be a finite number >= 0, got inf"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Dist(**arguments)
