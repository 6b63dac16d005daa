"""What a learner hears of teachers that do not know all of its classes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from ensemble_kd.functional import Merge, log_mean_probabilities, mean_logits, merged_kl
from ensemble_kd.objectives import Label, Soft, Term
from ensemble_kd.strategies.hearing import heard, of_those_who_know
from ensemble_kd.strategies.lesson import Lesson
from ensemble_kd.teachers import Mixture
from ensemble_kd.types import UNLABELLED, Batch, Output, Progress
from ensemble_kd.weightings import Confidence, Entropy, Uniform

Translating = Callable[..., tuple[Tensor, Output]]
Softmax = Callable[[list[float]], list[float]]
START = Progress(0, 0, 0.0)
HALVES = (["ant", "bee"], ["cat", "dog", "elk"])


# The merge of teachers that know different classes.


def reference_merged(
    said: list[list[float]], weights: list[float], student: list[float], merge: str, t: float
) -> float:
    """Over the classes that are known: means over those who know a class, then normalised."""
    known = [[z > -math.inf for z in row] for row in said]

    def divergence(p: dict[int, float]) -> float:
        powers = {c: math.exp(student[c] / t) for c in p}
        whole = sum(powers.values())
        return sum(v * (math.log(v) - math.log(powers[c] / whole)) for c, v in p.items() if v > 0)

    def soft(row: dict[int, float]) -> dict[int, float]:
        whole = sum(math.exp(z / t) for z in row.values())
        return {c: math.exp(z / t) / whole for c, z in row.items()}

    def inside(row: list[float]) -> dict[int, float]:
        return {c: z for c, z in enumerate(row) if z > -math.inf}

    if merge == "losses":
        return sum(w * divergence(soft(inside(row))) for w, row in zip(weights, said, strict=True))
    heard = {
        c: sum(w for w, row in zip(weights, known, strict=True) if row[c])
        for c in range(5)
        if any(w > 0 and row[c] for w, row in zip(weights, known, strict=True))
    }
    if merge == "probabilities":
        each = [soft(inside(row)) for row in said]
        mean = {
            c: sum(w * p.get(c, 0.0) for w, p in zip(weights, each, strict=True)) / total
            for c, total in heard.items()
        }
        return divergence({c: v / sum(mean.values()) for c, v in mean.items()})
    logs = []
    for row in said:
        whole = math.log(sum(math.exp(z) for z in inside(row).values()))
        logs.append({c: z - whole for c, z in inside(row).items()})
    mean = {
        c: sum(w * p[c] for w, p in zip(weights, logs, strict=True) if c in p) / total
        for c, total in heard.items()
    }
    return divergence(soft(mean))


OVERLAPS = [
    HALVES,
    (["ant", "bee", "cat"], ["cat", "dog", "elk"]),
    (["ant", "bee"], ["dog", "cat"]),
]


@pytest.mark.parametrize(
    ("halves", "merge", "t", "alone"),
    list(
        itertools.product(
            OVERLAPS, ["losses", "probabilities", "logits"], [1.0, 3.0], [False, True]
        )
    ),
)
def test_the_merge_is_over_those_who_know_a_class(
    halves: tuple[list[str], list[str]],
    merge: Merge,
    t: float,
    alone: bool,
    translated: Translating,
) -> None:
    said = torch.stack([translated(list(half), k)[1].logits for k, half in enumerate(halves)])
    student = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    shares = [1.0, 0.0] if alone else [0.3, 0.7]
    weights = torch.tensor(shares, dtype=torch.float64)[:, None].repeat(1, 3).requires_grad_()
    values = merged_kl(said, student, weights, t, merge)
    expected = [
        reference_merged(said[:, i].tolist(), shares, student[i].tolist(), merge, t)
        for i in range(3)
    ]
    assert values.tolist() == pytest.approx(expected)
    values.sum().backward()
    assert student.grad is not None
    assert weights.grad is not None
    assert torch.isfinite(student.grad).all()
    assert torch.isfinite(weights.grad).all()
    if alone:  # of classes of which nobody speaks the student hears nothing
        unknown = said[0, 0] == -torch.inf
        assert (student.grad[:, unknown] == 0).all()


def test_what_one_teacher_adds_to_all_its_logits_does_not_count(translated: Translating) -> None:
    said = torch.stack([translated(list(half), k)[1].logits for k, half in enumerate(HALVES)])
    weights = torch.full((2, 3), 0.5, dtype=torch.float64)
    lifted = said + torch.tensor([3.0, -2.0])[:, None, None]
    for one, other in ((mean_logits(said, weights), mean_logits(lifted, weights)),):
        torch.testing.assert_close(one.softmax(-1), other.softmax(-1))


def test_the_ensemble_is_the_merge_of_probabilities(translated: Translating) -> None:
    said = [translated(list(half), k)[1].logits for k, half in enumerate(HALVES)]
    p = Mixture([nn.Identity(), nn.Identity()]).merge(said).exp()
    expected = torch.cat([said[0].softmax(-1)[:, :2], said[1].softmax(-1)[:, 2:]], dim=-1) / 2
    torch.testing.assert_close(p, expected)


# Who speaks of a sample.


def test_who_does_not_know_the_label_does_not_speak(translated: Translating) -> None:
    voices = tuple(translated(list(half), k, 4)[1] for k, half in enumerate(HALVES))
    voices = (*voices, Output(torch.randn(4, 5, dtype=torch.float64)))
    target = torch.tensor([1, 3, UNLABELLED, 4])
    batch = Batch(None, target, torch.arange(4), target != UNLABELLED)
    weights = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)[:, None].repeat(1, 4)
    kept = of_those_who_know(weights, voices, batch)
    known = [2 / 7, 0, 5 / 7], [0, 3 / 8, 5 / 8], [0.2, 0.3, 0.5], [0, 3 / 8, 5 / 8]
    for i, expected in enumerate(known):
        assert kept[:, i].tolist() == pytest.approx(expected)


def test_where_nobody_knows_the_label_nobody_speaks(translated: Translating) -> None:
    voices = (translated(["ant", "bee"])[1],)
    batch = Batch(None, torch.tensor([0, 2, 4]), torch.arange(3))
    weights = torch.ones(1, 3, dtype=torch.float64)
    assert of_those_who_know(weights, voices, batch).tolist() == [[1.0, 0.0, 0.0]]


@pytest.mark.parametrize("weighting", [Uniform, Entropy, Confidence])
@pytest.mark.parametrize("merge", get_args(Merge))
def test_a_lesson_of_two_halves_is_finite_and_teaches_within_them(
    weighting: Any, merge: Merge, translated: Translating
) -> None:
    voices = tuple(translated(list(half), k)[1] for k, half in enumerate(HALVES))
    lesson = Lesson({"soft": Term(Soft(merge=merge)), "label": Term(Label())}, weighting())
    learner = Output(torch.randn(3, 5, dtype=torch.float64, requires_grad=True))
    batch = Batch(None, torch.tensor([0, 2, 4]), torch.arange(3))
    weights = lesson.weights(learner, voices, batch, START)
    assert weights.tolist() == [[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]]
    losses = lesson.losses(learner, voices, weights, batch, START)
    (gradient,) = torch.autograd.grad(losses["soft"], learner.logits)
    assert torch.isfinite(gradient).all()
    # The label says that it is one of the classes of who speaks: the others are ruled out.
    assert (gradient[0, 2:] > 0).all()
    assert (gradient[1:, :2] > 0).all()
    assert (gradient[0, :2] != 0).all()


@pytest.mark.parametrize("merge", get_args(Merge))
@pytest.mark.parametrize("label", [None, 0, 3])
def test_a_label_rules_out_what_the_speaking_teacher_does_not_know(
    merge: Merge, label: int | None, translated: Translating, softmax: Softmax
) -> None:
    """Held against all classes then, and among those that the teacher knows otherwise."""
    voices = (translated(["ant", "bee"])[1],)
    learner = Output(torch.randn(3, 5, dtype=torch.float64))
    target = torch.full((3,), UNLABELLED if label is None else label)
    batch = Batch(None, target, torch.arange(3), target != UNLABELLED)
    lesson = Lesson({"soft": Term(Soft(temperature=2.0, merge=merge))}, Uniform())
    weights = lesson.weights(learner, voices, batch, START)
    found = float(lesson.losses(learner, voices, weights, batch, START)["soft"])
    expected = []
    for i in range(3):
        p = softmax([z / 2 for z in voices[0].logits[i, :2].tolist()])
        q = softmax([z / 2 for z in learner.logits[i].tolist()])
        whole = sum(q[:2]) if label is None else 1.0
        expected.append(4 * sum(a * math.log(a / (b / whole)) for a, b in zip(p, q, strict=False)))
    assert found == pytest.approx(0.0 if label == 3 else sum(expected) / 3)


def test_a_class_that_is_ruled_out_by_all_who_speak_has_no_probability(
    translated: Translating,
) -> None:
    voices = tuple(translated(list(half), k)[1] for k, half in enumerate(OVERLAPS[1]))
    learner = Output(torch.randn(3, 5, dtype=torch.float64))
    target = torch.full((3,), 2)  # a cat, which both know
    batch = Batch(None, target, torch.arange(3))
    said = torch.stack([voice.logits for voice in heard(voices, learner, batch)])
    weights = torch.full((2, 3), 0.5, dtype=torch.float64)
    p = log_mean_probabilities(said.log_softmax(-1), weights).exp()
    first, second = (voice.logits.softmax(-1) for voice in voices)
    mean = torch.stack(
        [first[:, 0], first[:, 1], (first[:, 2] + second[:, 2]) / 2, second[:, 3], second[:, 4]]
    ).T
    torch.testing.assert_close(p, mean / mean.sum(-1, keepdim=True))
    alone = log_mean_probabilities(said[:1].log_softmax(-1), weights[:1] * 2).exp()
    assert (alone[:, 3:] == 0).all()


def test_who_knows_shares_equally_where_the_weighting_chose_somebody_else(
    translated: Translating,
) -> None:
    voices = tuple(translated(list(half), k)[1] for k, half in enumerate(OVERLAPS[1]))
    voices = (translated(["dog", "elk"], 5)[1], *voices)
    batch = Batch(None, torch.tensor([2, 0, 4]), torch.arange(3))
    weights = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    kept = of_those_who_know(weights, voices, batch)
    assert kept.T.tolist() == [[0.0, 0.5, 0.5], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    nobody = of_those_who_know(0 * weights, voices, batch)
    assert (nobody == 0).all()


def test_confidence_weighs_those_who_know_as_if_they_were_alone(translated: Translating) -> None:
    pair = tuple(Output(torch.randn(3, 5, dtype=torch.float64)) for _ in range(2))
    stranger = translated(["dog", "elk"])[1]
    batch = Batch(None, torch.tensor([0, 1, 2]), torch.arange(3))
    learner = Output(torch.zeros(3, 5, dtype=torch.float64))
    alone = Confidence()(pair, learner, batch, START)
    beside = Confidence()((*pair, stranger), learner, batch, START)
    torch.testing.assert_close(beside[:2], alone)
    assert (beside[2] == 0).all()
    nobody = Confidence()((stranger, stranger), learner, batch, START)
    assert nobody.tolist() == [[0.5] * 3] * 2
