from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ensemble_kd.objectives import PseudoLabel, Term
from ensemble_kd.types import UNLABELLED, Batch, Output, Progress

Said = Callable[..., tuple[Output, tuple[Output, ...], Tensor, Batch]]
Softmax = Callable[[list[float], float], list[float]]
PROGRESS = Progress(0, 0, 0.0)
CASES = list(itertools.product([(4,), (2, 3)], [2, 5], [1, 3], [False, True]))


def reference_pseudo_label(
    student: list[float], teachers: list[list[float]], weights: list[float], softmax: Softmax
) -> float:
    """Cross-entropy with the likeliest class (Lee, 2013), of the mean of the teachers."""
    each = [softmax(logits, 1.0) for logits in teachers]
    classes = range(len(student))
    mean = [math.fsum(w * p[c] for w, p in zip(weights, each, strict=True)) for c in classes]
    likeliest = max(classes, key=lambda c: mean[c])
    return -math.fsum(weights) * math.log(softmax(student, 1.0)[likeliest])


@pytest.mark.parametrize(("shape", "classes", "members", "labelled"), CASES)
def test_it_is_the_definition(
    said: Said,
    reference_softmax: Softmax,
    shape: tuple[int, ...],
    classes: int,
    members: int,
    labelled: bool,
) -> None:
    student, teachers, weights, batch = said(members, members, shape, classes, labelled=labelled)
    found = PseudoLabel()(student, teachers, weights, batch, PROGRESS)
    assert found.shape == shape
    logits = torch.stack([each.logits for each in teachers]).flatten(1, -2).movedim(1, 0)
    rows = zip(
        student.logits.flatten(0, -2).tolist(),
        logits.tolist(),
        weights.flatten(1).T.tolist(),
        strict=True,
    )
    want = [reference_pseudo_label(*row, reference_softmax) for row in rows]
    assert found.flatten().tolist() == pytest.approx(want, rel=1e-12)


def test_the_gradient_is_the_students_probabilities_less_the_class(said: Said) -> None:
    student, teachers, weights, batch = said(0, 3)
    PseudoLabel()(student, teachers, weights, batch, PROGRESS).sum().backward()
    probabilities = torch.stack([each.logits.softmax(-1) for each in teachers])
    classes = (weights.unsqueeze(-1) * probabilities).sum(0).argmax(-1)
    want = student.logits.detach().softmax(-1)
    want[torch.arange(4), classes] -= 1
    assert student.logits.grad is not None
    torch.testing.assert_close(student.logits.grad, want)


def test_labels_count_for_nothing_and_every_sample_counts(said: Said) -> None:
    student, teachers, weights, batch = said(1, 2, labelled=True)
    term = Term(PseudoLabel())
    mask = torch.tensor([True, False, False, True])
    partly = Batch(None, batch.target.where(mask, UNLABELLED), batch.index, mask)
    whole = term(student, teachers, weights, batch, PROGRESS)
    assert torch.equal(term(student, teachers, weights, partly, PROGRESS), whole)
    torch.testing.assert_close(
        whole, PseudoLabel()(student, teachers, weights, batch, PROGRESS).mean()
    )


def test_the_mean_of_probabilities_decides_and_not_a_majority() -> None:
    """Two teachers who are hardly for one class against a third who is sure of another."""
    logits = torch.tensor([[0.1, 0.0, 0.0], [0.1, 0.0, 0.0], [0.0, 9.0, 0.0]], dtype=torch.float64)
    teachers = tuple(Output(each.unsqueeze(0)) for each in logits)
    student = Output(torch.tensor([[3.0, 1.0, 0.0]], dtype=torch.float64))
    batch = Batch(None, torch.tensor([0]), torch.arange(1))
    equal = torch.full((3, 1), 1 / 3, dtype=torch.float64)
    found = PseudoLabel()(student, teachers, equal, batch, PROGRESS)
    torch.testing.assert_close(found, -student.logits.log_softmax(-1)[:, 1])


def test_silence_is_zero_with_zero_gradient(said: Said) -> None:
    student, teachers, weights, batch = said(2, 2)
    found = PseudoLabel()(student, teachers, 0 * weights, batch, PROGRESS)
    found.sum().backward()
    assert not found.any()
    assert student.logits.grad is not None
    assert not student.logits.grad.any()


def test_classes_that_nobody_knows_are_not_asked_for(said: Said) -> None:
    """The student is then one among the classes that are known, as under soft targets."""
    student, teachers, weights, batch = said(3, 2)
    partial = tuple(
        Output(torch.cat([each.logits[:, :3], torch.full((4, 2), -torch.inf)], dim=1))
        for each in teachers
    )
    few = tuple(Output(each.logits[:, :3]) for each in teachers)
    found = PseudoLabel()(student, partial, weights, batch, PROGRESS)
    found.sum().backward()
    want = PseudoLabel()(Output(student.logits[:, :3]), few, weights, batch, PROGRESS)
    torch.testing.assert_close(found, want)
    assert student.logits.grad is not None
    assert student.logits.grad.isfinite().all()


def test_it_needs_a_teacher(said: Said) -> None:
    student, _, weights, batch = said(4, 1)
    with pytest.raises(ValueError, match="at least one teacher"):
        PseudoLabel()(student, (), weights[:0], batch, PROGRESS)
