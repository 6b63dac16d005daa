from __future__ import annotations

import math
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor

from ensemble_kd.functional import Merge
from ensemble_kd.objectives import Dkd, Soft
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
    batch = Batch(None, torch.randint(classes, shape, generator=generator), torch.arange(shape[0]))
    student = Output(logits[0].clone().requires_grad_())
    return student, tuple(Output(z) for z in logits[1:]), weights / weights.sum(0), batch


def reference_softmax(logits: list[float], temperature: float) -> list[float]:
    powers = [math.exp(z / temperature) for z in logits]
    return [power / math.fsum(powers) for power in powers]


def reference_targets(
    teachers: list[list[float]], weights: list[float], temperature: float, merge: Merge
) -> list[tuple[float, list[float]]]:
    """The distributions that one sample is compared with, each with its weight."""
    pairs = list(zip(weights, teachers, strict=True))
    classes = range(len(teachers[0]))
    if merge == "losses":
        return [(w, reference_softmax(z, temperature)) for w, z in pairs]
    if merge == "logits":
        mean = [math.fsum(w * z[c] for w, z in pairs) for c in classes]
        return [(1.0, reference_softmax(mean, temperature))]
    each = [(w, reference_softmax(z, temperature)) for w, z in pairs]
    return [(1.0, [math.fsum(w * p[c] for w, p in each) for c in classes])]


def reference_kl(p: list[float], q: list[float]) -> float:
    return math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def reference_parts(p: list[float], q: list[float], label: int) -> tuple[float, float]:
    """KL of (label, not label), and of the other classes renormalised among themselves."""
    tckd = reference_kl([p[label], 1 - p[label]], [q[label], 1 - q[label]])
    others = [c for c in range(len(p)) if c != label]
    p_rest, q_rest = (math.fsum(x[c] for c in others) for x in (p, q))
    nckd = reference_kl([p[c] / p_rest for c in others], [q[c] / q_rest for c in others])
    return tckd, nckd


def reference_dkd(p: list[float], q: list[float], label: int, alpha: float, beta: float) -> float:
    tckd, nckd = reference_parts(p, q, label)
    return alpha * tckd + beta * nckd


@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_it_is_the_definition(
    merge: Merge, shape: tuple[int, ...], classes: int, members: int, temperature: float
) -> None:
    student, teachers, weights, batch = said(members, members, shape, classes)
    got = Dkd(0.7, 3.0, temperature, merge)(student, teachers, weights, batch, PROGRESS)
    own = student.logits.detach().flatten(0, -2).tolist()
    labels = batch.target.flatten().tolist()
    taught = torch.stack([teacher.logits for teacher in teachers]).flatten(1, -2)
    shares = weights.flatten(1)
    want = []
    for i, z in enumerate(own):
        q = reference_softmax(z, temperature)
        targets = reference_targets(
            taught[:, i].tolist(), shares[:, i].tolist(), temperature, merge
        )
        want.append(
            temperature**2
            * math.fsum(w * reference_dkd(p, q, labels[i], 0.7, 3.0) for w, p in targets)
        )
    assert got.shape == shape
    assert got.flatten().tolist() == pytest.approx(want, rel=1e-9, abs=1e-12)


def test_kd_is_the_target_part_and_the_rest_of_the_others_part() -> None:
    """KD = TCKD + (1 - p_label) NCKD, so that alpha = beta = 1 is KD + p_label NCKD."""
    student, teachers, _, batch = said(1, 1)
    voices = (student, teachers, torch.ones(1, 4, dtype=torch.float64), batch, PROGRESS)
    tckd, nckd = Dkd(1.0, 0.0, 3.0)(*voices), Dkd(0.0, 1.0, 3.0)(*voices)
    p = (teachers[0].logits / 3).softmax(-1).gather(-1, batch.target.unsqueeze(-1)).squeeze(-1)
    kd = Soft(3.0)(*voices)
    torch.testing.assert_close(tckd + (1 - p) * nckd, kd)
    torch.testing.assert_close(Dkd(1.0, 1.0, 3.0)(*voices), kd + p * nckd)


def test_its_gradient_is_that_of_the_published_formula() -> None:
    """With 1000 taken off the label's logit and a binary cross-entropy, in float64."""
    student, teachers, _, batch = said(2, 1)
    z, t = student.logits, teachers[0].logits
    hot = torch.nn.functional.one_hot(batch.target, 5)
    q, p = (z / 4).softmax(-1), (t / 4).softmax(-1)
    pair_q, pair_p = (torch.stack([(x * hot).sum(-1), (x * (1 - hot)).sum(-1)], -1) for x in (q, p))
    tckd = (pair_p * (pair_p / pair_q).log()).sum(-1)
    log_q, log_p = ((x / 4 - 1000 * hot).log_softmax(-1) for x in (z, t))
    nckd = (log_p.exp() * (log_p - log_q)).sum(-1)
    want = 16 * (tckd + 8 * nckd)
    one = torch.ones(1, 4, dtype=torch.float64)
    got = Dkd()(student, teachers, one, batch, PROGRESS)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(
        torch.autograd.grad(got.sum(), z), torch.autograd.grad(want.sum(), z)
    )


def test_a_sure_teacher_still_teaches_the_others() -> None:
    """What DKD is for: KD hardly hears the others of a teacher who is sure."""
    own = torch.tensor([[15.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    taught = torch.tensor([[15.0, 2.0, 0.0, -2.0]], dtype=torch.float64)
    batch = Batch(None, torch.tensor([0]), torch.tensor([0]))
    voices = (Output(own), (Output(taught),), torch.ones(1, 1), batch, PROGRESS)
    assert Soft(1.0)(*voices) < 1e-4
    assert Dkd(1.0, 1.0, 1.0)(*voices) > 0.1


def test_an_unlabelled_sample_is_zero() -> None:
    student, teachers, weights, batch = said(4, 2)
    hidden = batch._replace(target=batch.target.index_fill(0, torch.tensor([1]), UNLABELLED))
    values = Dkd()(student, teachers, weights, hidden, PROGRESS)
    known = Dkd()(student, teachers, weights, batch, PROGRESS)
    assert values[1] == 0
    assert torch.equal(values[[0, 2, 3]], known[[0, 2, 3]])
    (gradient,) = torch.autograd.grad(values.sum(), student.logits)
    assert (gradient[1] == 0).all()
    assert (gradient[[0, 2, 3]].abs().sum(-1) > 0).all()


WARM_UP = Path(__file__).parents[2] / "conf" / "objective" / "dkd.yaml"


@pytest.mark.parametrize("epoch", [0, 1, 9, 18, 19, 100, 239])
def test_the_warm_up_is_that_of_the_paper(epoch: int) -> None:
    """min(e / 20, 1) for the e-th of 240 epochs, counted from one, at the start of each."""
    root = OmegaConf.create({"objective": OmegaConf.load(WARM_UP)})
    schedule = instantiate(root.objective.terms)["dkd"].schedule
    assert schedule(epoch / 240) == pytest.approx(min((epoch + 1) / 20, 1), rel=1e-3)


@pytest.mark.parametrize("merge", MERGES)
def test_who_receives_gradient(merge: Merge) -> None:
    """The student and the weights; the teachers never, even if they could."""
    student, teachers, weights, batch = said(5, 3)
    teachers = tuple(Output(teacher.logits.requires_grad_()) for teacher in teachers)
    weights.requires_grad_()
    torch.autograd.backward(Dkd(merge=merge)(student, teachers, weights, batch, PROGRESS).sum())
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
        lambda z, w: Dkd(merge=merge)(Output(z), teachers, w, batch, PROGRESS),
        (student.logits, weights),
    )


@pytest.mark.parametrize("merge", MERGES)
def test_a_sample_without_a_teacher_is_zero(merge: Merge) -> None:
    student, teachers, weights, batch = said(7, 3)
    weights[:, 1] = 0
    values = Dkd(merge=merge)(student, teachers, weights, batch, PROGRESS)
    assert values[1] == 0
    (gradient,) = torch.autograd.grad(values.sum(), student.logits)
    assert (gradient[1] == 0).all()
    assert (values[[0, 2, 3]] > 0).all()


@pytest.mark.parametrize("merge", MERGES)
def test_identical_teachers_are_one_teacher(merge: Merge) -> None:
    student, teachers, weights, batch = said(8, 3)
    objective = Dkd(merge=merge)
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
    values = Dkd(merge=merge)(student, same, weights, batch, PROGRESS)
    (gradient,) = torch.autograd.grad(values.sum(), student.logits)
    torch.testing.assert_close(values, torch.zeros_like(values))
    torch.testing.assert_close(gradient, torch.zeros_like(gradient))


def test_the_temperature_can_be_a_schedule() -> None:
    student, teachers, weights, batch = said(10, 2)
    objective = Dkd(temperature=Linear(4.0, 1.0))
    for fraction, temperature in ((0.0, 4.0), (0.5, 2.5), (1.0, 1.0)):
        torch.testing.assert_close(
            objective(student, teachers, weights, batch, Progress(0, 0, fraction)),
            Dkd(temperature=temperature)(student, teachers, weights, batch, PROGRESS),
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
            values = Dkd(merge=merge)(Output(own), teachers, weights, batch, PROGRESS)
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
    values = Dkd()(low[0], low[1:], weights.float(), batch, PROGRESS)
    assert values.dtype == torch.float32
    assert torch.equal(values, Dkd()(high[0], high[1:], weights.float(), batch, PROGRESS))


def test_what_it_needs() -> None:
    assert Dkd.needs_labels is True
    assert Dkd.needs_teachers


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": 0.0}, "temperature must be a positive finite number, got 0.0"),
        ({"temperature": math.nan}, "temperature must be a positive finite number, got nan"),
        ({"merge": "mean"}, "merge must be one of losses, probabilities, logits, got 'mean'"),
        ({"alpha": -1.0}, "alpha must be a finite number >= 0, got -1.0"),
        ({"beta": math.inf}, "beta must be a finite number >= 0, got inf"),
        ({"beta": math.nan}, "beta must be a finite number >= 0, got nan"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Dkd(**arguments)


def test_what_does_not_fit_is_refused() -> None:
    student, teachers, weights, batch = said(12, 2)
    with pytest.raises(ValueError, match="at least one teacher, got none"):
        Dkd()(student, (), weights[:0], batch, PROGRESS)
    with pytest.raises(ValueError, match=r"teacher 0 must have the student's shape \(4, 5\)"):
        Dkd()(student, (Output(torch.zeros(4, 6)),) * 2, weights, batch, PROGRESS)
    with pytest.raises(ValueError, match=r"\(teachers, samples\) \(2, 4\), got \(1, 4\)"):
        Dkd()(student, teachers, weights[:1], batch, PROGRESS)
