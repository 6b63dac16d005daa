from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from ensemble_kd.objectives import Soft
from ensemble_kd.types import UNLABELLED, Batch, Output, Progress
from ensemble_kd.weightings import Monitor

PROGRESS = Progress(0, 0, 0.0)


def sure_of(classes: list[int], probability: float = 0.99) -> Output:
    """Three classes; the rest of the probability is shared by the other two."""
    rows = torch.full((len(classes), 3), (1 - probability) / 2, dtype=torch.float64)
    rows[range(len(classes)), classes] = probability
    return Output(rows.log())


def reference_weights(
    teachers: list[list[list[float]]],
    student: list[list[float]],
    target: list[int],
    threshold: float,
) -> list[list[float]]:
    """Sample by sample: who is right, whether the student needs it, and an equal share."""
    columns = []
    for i, label in enumerate(target):
        total = math.fsum(math.exp(z) for z in student[i])
        surest = max(math.exp(z) / total for z in student[i])
        wrong = max(range(len(student[i])), key=lambda c: student[i][c]) != label
        right = [max(range(len(t[i])), key=lambda c: t[i][c]) == label for t in teachers]
        speaks = [r and (wrong or surest < threshold) for r in right]
        columns.append([s / max(sum(speaks), 1) for s in speaks])
    return [list(row) for row in zip(*columns, strict=True)]


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.6, 0.9, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_definition(situation: Callable[..., Any], threshold: float, seed: int) -> None:
    given = situation(seed, members=4, shape=(40,), classes=3)
    teachers, student, batch, _ = given
    want = reference_weights(
        [t.logits.tolist() for t in teachers],
        student.logits.tolist(),
        batch.target.tolist(),
        threshold,
    )
    got = Monitor(threshold)(*given)
    torch.testing.assert_close(got, torch.tensor(want, dtype=torch.float64))


def test_four_cases_by_hand() -> None:
    """Right and sure; right but unsure; wrong; wrong while all teachers are wrong too."""
    batch = Batch(None, torch.tensor([0, 0, 0, 0]), torch.arange(4))
    student = Output(torch.cat([sure_of([0]).logits, sure_of([0, 1, 1], 0.5).logits]))
    teachers = (sure_of([0, 0, 0, 1]), sure_of([0, 0, 2, 2]), sure_of([1, 0, 0, 1]))
    weights = Monitor(0.9)(teachers, student, batch, PROGRESS)
    third, half = 1 / 3, 0.5
    want = [[0, third, half, 0], [0, third, 0, 0], [0, third, half, 0]]
    torch.testing.assert_close(weights, torch.tensor(want, dtype=torch.float64))
    assert Monitor(0.9).measurements(weights)["gate"].item() == pytest.approx(0.5)


def test_without_a_label_the_majority_is_right() -> None:
    """Two of three agree; all differ; all agree with a student who is sure, or who is not."""
    batch = Batch(None, torch.full((4,), UNLABELLED), torch.arange(4))
    student = Output(torch.cat([sure_of([0, 0, 2]).logits, sure_of([2], 0.5).logits]))
    teachers = (sure_of([1, 0, 2, 2]), sure_of([1, 1, 2, 2]), sure_of([0, 2, 2, 2]))
    weights = Monitor(0.9)(teachers, student, batch, PROGRESS)
    third, half = 1 / 3, 0.5
    want = [[half, 0, 0, third], [half, 0, 0, third], [0, 0, 0, third]]
    torch.testing.assert_close(weights, torch.tensor(want, dtype=torch.float64))


@pytest.mark.parametrize(("first", "second", "speaks"), [(1, 1, True), (1, 0, False)])
def test_half_of_the_teachers_are_no_majority(first: int, second: int, speaks: bool) -> None:
    batch = Batch(None, torch.tensor([UNLABELLED]), torch.arange(1))
    weights = Monitor()((sure_of([first]), sure_of([second])), sure_of([0]), batch, PROGRESS)
    assert weights.sum().item() == float(speaks)


def test_a_label_counts_for_more_than_the_majority() -> None:
    batch = Batch(None, torch.tensor([0, UNLABELLED]), torch.arange(2))
    teachers = (sure_of([0, 0]), sure_of([1, 1]), sure_of([1, 1]))
    weights = Monitor()(teachers, sure_of([2, 2]), batch, PROGRESS)
    want = torch.tensor([[1, 0], [0, 0.5], [0, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(weights, want)


@pytest.mark.parametrize("merge", ["losses", "probabilities", "logits"])
def test_where_no_teacher_speaks_the_soft_term_vanishes(merge: Any) -> None:
    batch = Batch(None, torch.tensor([0, 0]), torch.arange(2))
    student = Output(sure_of([0, 1]).logits.requires_grad_())
    teachers = (sure_of([0, 0], 0.6), sure_of([0, 1], 0.6))
    weights = Monitor()(teachers, student, batch, PROGRESS)
    values = Soft(2.0, merge)(student, teachers, weights, batch, PROGRESS)
    (gradient,) = torch.autograd.grad(values.sum(), student.logits)
    assert values[0] == 0
    assert torch.equal(gradient[0], torch.zeros(3, dtype=torch.float64))
    assert values[1] > 0
    assert gradient[1].abs().sum() > 0


@pytest.mark.parametrize("threshold", [-0.1, 1.1, math.nan])
def test_the_threshold_must_be_a_probability(threshold: float) -> None:
    with pytest.raises(ValueError, match=r"threshold must be in \[0, 1\], got"):
        Monitor(threshold)
