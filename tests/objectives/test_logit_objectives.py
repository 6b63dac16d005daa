"""What all objectives on logits have in common, whatever they compare."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from ensemble_kd.functional import Merge
from ensemble_kd.objectives import (
    CrossEntropySoft,
    Dist,
    Dkd,
    Jsd,
    MseLogits,
    ReverseKl,
    Standardised,
    Tvd,
)
from ensemble_kd.objectives.mse_logits import LogitMerge
from ensemble_kd.schedules import Linear
from ensemble_kd.types import UNLABELLED, Batch, Output, Progress

Said = Callable[..., tuple[Output, tuple[Output, ...], Tensor, Batch]]
PROGRESS = Progress(0, 0, 0.0)
SOFTENED: list[Any] = [CrossEntropySoft, Dist, Dkd, Jsd, ReverseKl, Standardised, Tvd]
LEAVES: list[Any] = [*SOFTENED, MseLogits]
MERGED = [
    pytest.param(leaf, merge, id=f"{leaf.__name__}-{merge}")
    for leaf in LEAVES
    for merge in get_args(LogitMerge if leaf is MseLogits else Merge)
]
# At its teachers a cross-entropy is their entropy, and the total variation has a corner.
ZERO_AND_FLAT = [case for case in MERGED if case.values[0] not in (CrossEntropySoft, Tvd)]
# The intra part of DIST compares a class over the whole batch, so that every sample is pulled.
BY_SAMPLE = [case for case in MERGED if case.values[0] is not Dist]


@pytest.mark.parametrize(("leaf", "merge"), MERGED)
def test_who_receives_gradient(said: Said, leaf: Any, merge: str) -> None:
    """The student and the weights; the teachers never, even if they could."""
    student, teachers, weights, batch = said(5, 3, labelled=leaf.needs_labels)
    teachers = tuple(Output(teacher.logits.requires_grad_()) for teacher in teachers)
    weights.requires_grad_()
    torch.autograd.backward(leaf(merge=merge)(student, teachers, weights, batch, PROGRESS).sum())
    assert student.logits.grad is not None
    assert student.logits.grad.abs().sum() > 0
    assert weights.grad is not None
    assert weights.grad.abs().sum() > 0
    assert all(teacher.logits.grad is None for teacher in teachers)


@pytest.mark.parametrize(("leaf", "merge"), MERGED)
def test_the_gradient_is_the_numerical_one(said: Said, leaf: Any, merge: str) -> None:
    student, teachers, weights, batch = said(6, 2, labelled=leaf.needs_labels)
    weights.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z, w: leaf(merge=merge)(Output(z), teachers, w, batch, PROGRESS),
        (student.logits, weights),
    )


@pytest.mark.parametrize(("leaf", "merge"), MERGED)
def test_a_sample_without_a_teacher_is_zero(said: Said, leaf: Any, merge: str) -> None:
    student, teachers, weights, batch = said(7, 3, labelled=leaf.needs_labels)
    weights[:, 1] = 0
    values = leaf(merge=merge)(student, teachers, weights, batch, PROGRESS)
    assert values[1] == 0
    assert (values[[0, 2, 3]] > 0).all()


@pytest.mark.parametrize(("leaf", "merge"), BY_SAMPLE)
def test_a_sample_without_a_teacher_is_not_pulled(said: Said, leaf: Any, merge: str) -> None:
    student, teachers, weights, batch = said(7, 3, labelled=leaf.needs_labels)
    weights[:, 1] = 0
    values = leaf(merge=merge)(student, teachers, weights, batch, PROGRESS)
    (gradient,) = torch.autograd.grad(values.sum(), student.logits)
    assert (gradient[1] == 0).all()


@pytest.mark.parametrize(("leaf", "merge"), MERGED)
def test_identical_teachers_are_one_teacher(said: Said, leaf: Any, merge: str) -> None:
    student, teachers, weights, batch = said(8, 3, labelled=leaf.needs_labels)
    objective = leaf(merge=merge)
    one = torch.ones(1, 4, dtype=torch.float64)
    many = objective(student, teachers[:1] * 3, weights, batch, PROGRESS)
    single = objective(student, teachers[:1], one, batch, PROGRESS)
    torch.testing.assert_close(many, single)
    torch.testing.assert_close(
        torch.autograd.grad(many.sum(), student.logits),
        torch.autograd.grad(single.sum(), student.logits),
    )


@pytest.mark.parametrize(("leaf", "merge"), ZERO_AND_FLAT)
def test_a_student_like_its_teachers_has_nothing_to_learn(
    said: Said, leaf: Any, merge: str
) -> None:
    student, _, weights, batch = said(9, 3, labelled=leaf.needs_labels)
    same = (Output(student.logits.detach()),) * 3
    values = leaf(merge=merge)(student, same, weights, batch, PROGRESS)
    (gradient,) = torch.autograd.grad(values.sum(), student.logits)
    torch.testing.assert_close(values, torch.zeros_like(values))
    torch.testing.assert_close(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("leaf", SOFTENED)
def test_the_temperature_can_be_a_schedule(said: Said, leaf: Any) -> None:
    student, teachers, weights, batch = said(10, 2, labelled=leaf.needs_labels)
    objective = leaf(temperature=Linear(4.0, 1.0))
    for fraction, temperature in ((0.0, 4.0), (0.5, 2.5), (1.0, 1.0)):
        torch.testing.assert_close(
            objective(student, teachers, weights, batch, Progress(0, 0, fraction)),
            leaf(temperature=temperature)(student, teachers, weights, batch, PROGRESS),
        )


@pytest.mark.parametrize("leaf", [CrossEntropySoft, Jsd, ReverseKl, Tvd])
def test_the_gradient_keeps_its_size_over_temperatures(said: Said, leaf: Any) -> None:
    student, teachers, weights, batch = said(13, 1, (64,))
    sizes = []
    for temperature in (10.0, 40.0):
        values = leaf(temperature=temperature)(student, teachers, weights, batch, PROGRESS)
        sizes.append(torch.autograd.grad(values.sum(), student.logits)[0].norm().item())
    assert sizes[0] / sizes[1] == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("leaf", [Jsd, ReverseKl])
def test_a_class_that_both_rule_out_counts_for_nothing(leaf: Any) -> None:
    own = torch.tensor([[1.0, 2.0, -math.inf]], requires_grad=True)
    taught = torch.tensor([[0.5, -1.0, -math.inf]])
    batch = Batch(None, torch.tensor([UNLABELLED]), torch.tensor([0]))
    voices = (torch.ones(1, 1), batch, PROGRESS)
    value = leaf()(Output(own), (Output(taught),), *voices)
    plain = leaf()(Output(own[:, :2]), (Output(taught[:, :2]),), *voices)
    torch.testing.assert_close(value, plain)
    assert torch.autograd.grad(value.sum(), own)[0].isfinite().all()


@pytest.mark.parametrize(("leaf", "merge"), MERGED)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_degenerate_logits_are_finite(
    leaf: Any, merge: str, dtype: torch.dtype, classes: int, batch_size: int
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
            values = leaf(merge=merge)(Output(own), teachers, weights, batch, PROGRESS)
            assert values.dtype == torch.float32
            assert values.isfinite().all()
            (gradient,) = torch.autograd.grad(values.sum(), own)
            assert gradient.dtype == dtype
            assert gradient.isfinite().all()


@pytest.mark.parametrize("leaf", LEAVES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single_precision(
    said: Said, leaf: Any, dtype: torch.dtype
) -> None:
    student, teachers, weights, batch = said(11, 3, labelled=leaf.needs_labels)
    low = tuple(Output(z.logits.to(dtype)) for z in (student, *teachers))
    high = tuple(Output(z.logits.float()) for z in low)
    values = leaf()(low[0], low[1:], weights.float(), batch, PROGRESS)
    assert values.dtype == torch.float32
    assert torch.equal(values, leaf()(high[0], high[1:], weights.float(), batch, PROGRESS))


@pytest.mark.parametrize("leaf", LEAVES)
def test_what_it_needs(leaf: Any) -> None:
    assert leaf.needs_labels is (leaf is Dkd)
    assert leaf.needs_teachers


@pytest.mark.parametrize("leaf", [leaf for leaf in LEAVES if leaf is not Dkd])
def test_labels_do_not_matter(said: Said, leaf: Any) -> None:
    known, hidden = (said(1, 2, labelled=labelled) for labelled in (True, False))
    assert torch.equal(leaf()(*known, PROGRESS), leaf()(*hidden, PROGRESS))


@pytest.mark.parametrize("leaf", SOFTENED)
@pytest.mark.parametrize("temperature", [0.0, math.nan])
def test_a_bad_temperature_is_refused(leaf: Any, temperature: float) -> None:
    message = f"temperature must be a positive finite number, got {temperature}"
    with pytest.raises(ValueError, match=message):
        leaf(temperature=temperature)


@pytest.mark.parametrize("leaf", SOFTENED)
def test_a_bad_merge_is_refused(leaf: Any) -> None:
    message = "merge must be one of losses, probabilities, logits, got 'mean'"
    with pytest.raises(ValueError, match=message):
        leaf(merge="mean")


@pytest.mark.parametrize("leaf", LEAVES)
def test_what_does_not_fit_is_refused(said: Said, leaf: Any) -> None:
    student, teachers, weights, batch = said(12, 2, labelled=leaf.needs_labels)
    with pytest.raises(ValueError, match="at least one teacher, got none"):
        leaf()(student, (), weights[:0], batch, PROGRESS)
    with pytest.raises(ValueError, match=r"teacher 0 must have the student's shape \(4, 5\)"):
        leaf()(student, (Output(torch.zeros(4, 6)),) * 2, weights, batch, PROGRESS)
    with pytest.raises(ValueError, match=r"\(teachers, samples\) \(2, 4\), got \(1, 4\)"):
        leaf()(student, teachers, weights[:1], batch, PROGRESS)
