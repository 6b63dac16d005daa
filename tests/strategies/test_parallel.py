from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from ensemble_kd.objectives import Term
from ensemble_kd.strategies import Parallel
from ensemble_kd.teachers import Ensemble, Frozen
from ensemble_kd.types import Batch, Progress
from ensemble_kd.weightings import Fixed, Uniform

START = Progress(0, 0, 0.0)
Maker = Callable[[int], nn.Module]


def reference_softmax(row: list[float], temperature: float) -> list[float]:
    top = max(row)
    powers = [math.exp((z - top) / temperature) for z in row]
    return [power / sum(powers) for power in powers]


def reference_label(logits: Tensor, batch: Batch) -> float:
    """Mean cross-entropy over the labelled samples."""
    assert batch.mask is not None
    losses = [
        -math.log(reference_softmax(row, 1.0)[y])
        for row, y, known in zip(
            logits.tolist(), batch.target.tolist(), batch.mask.tolist(), strict=True
        )
        if known
    ]
    return sum(losses) / len(losses)


def reference_soft(
    logits: Tensor, teachers: list[Tensor], weights: list[float], temperature: float
) -> float:
    """T^2 times the weighted sum of KL(teacher || student), mean over all samples."""
    total = 0.0
    for b in range(len(logits)):
        p_student = reference_softmax(logits[b].tolist(), temperature)
        for weight, teacher in zip(weights, teachers, strict=True):
            p_teacher = reference_softmax(teacher[b].tolist(), temperature)
            kl = sum(p * math.log(p / q) for p, q in zip(p_teacher, p_student, strict=True))
            total += weight * kl
    return temperature**2 * total / len(logits)


@pytest.mark.parametrize("weights", [[1.0], [0.5, 0.5], [0.2, 0.3, 0.5]])
def test_the_terms_are_those_of_the_paper(
    network: Maker,
    ensemble: Callable[[int], Ensemble],
    batch: Batch,
    terms: Callable[[], dict[str, Term]],
    weights: list[float],
) -> None:
    student, teachers = network(0), ensemble(len(weights))
    strategy = Parallel(terms(), Fixed(weights))
    (turn,) = strategy.turns(student, teachers, batch, START)
    said = [teacher(batch.inputs).logits for teacher in teachers.members]
    logits = student(batch.inputs).detach()
    assert turn.player == "student"
    assert turn.terms["label"].item() == pytest.approx(0.3 * reference_label(logits, batch))
    expected = 0.7 * reference_soft(logits, said, weights, 2.0)
    assert turn.terms["soft"].item() == pytest.approx(expected, rel=1e-6)


def test_only_the_student_receives_gradient(
    network: Maker,
    ensemble: Callable[[int], Ensemble],
    batch: Batch,
    terms: Callable[[], dict[str, Term]],
) -> None:
    student, teachers = network(0), ensemble(2)
    (turn,) = Parallel(terms(), Uniform()).turns(student, teachers, batch, START)
    sum(turn.terms.values(), torch.zeros(())).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in student.parameters())
    for teacher in teachers.members:
        network_of_teacher = cast(Frozen, teacher).network
        assert all(p.grad is None for p in network_of_teacher.parameters())


def test_unlabelled_samples_give_soft_terms_only(
    network: Maker,
    ensemble: Callable[[int], Ensemble],
    batch: Batch,
    terms: Callable[[], dict[str, Term]],
) -> None:
    unlabelled = batch._replace(
        mask=torch.zeros(7, dtype=torch.bool), target=torch.full((7,), -100)
    )
    (turn,) = Parallel(terms(), Uniform()).turns(network(0), ensemble(2), unlabelled, START)
    assert turn.terms["label"].item() == 0.0
    assert turn.terms["soft"].item() > 0.0


def test_soft_terms_without_teachers_are_refused(
    network: Maker, batch: Batch, terms: Callable[[], dict[str, Term]]
) -> None:
    with pytest.raises(ValueError, match="teacher"):
        next(Parallel(terms(), Uniform()).turns(network(0), Ensemble(), batch, START))


def test_no_terms_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one term"):
        Parallel({}, Uniform())
