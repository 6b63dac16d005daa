"""What holds for every weighting."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import ensemble_kd.weightings as shelf
from ensemble_kd.objectives import Soft, Term
from ensemble_kd.types import UNLABELLED, Batch, Output, Progress
from ensemble_kd.weightings import (
    Best,
    Confidence,
    Dropped,
    Entropy,
    Fixed,
    Gradient,
    Learned,
    Monitor,
    Random,
    Reinforced,
    Uniform,
    Weighting,
)

Situation = tuple[tuple[Output, ...], Output, Batch, Progress]
Situations = Callable[..., Situation]
Make = Callable[[int, int], Weighting]
PROPERTY = settings(deadline=None, derandomize=True, max_examples=25)


def trained_gate(classes: int) -> Learned:
    """A gate that no longer weighs all teachers alike."""
    gate = Learned(classes)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in gate.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return gate


MAKERS: dict[str, Make] = {
    "Uniform": lambda members, classes: Uniform(),
    "Fixed": lambda members, classes: Fixed(range(1, members + 1)),
    "Entropy": lambda members, classes: Entropy(),
    "Confidence": lambda members, classes: Confidence(),
    "Gradient": lambda members, classes: Gradient(temperature=2.0),
    "Random": lambda members, classes: Random(seed=5),
    "Dropped": lambda members, classes: Dropped(0.5, seed=5),
    "DroppedPerSample": lambda members, classes: Dropped(0.5, per="sample", seed=5),
    "Learned": lambda members, classes: trained_gate(classes),
    "Best": lambda members, classes: Best([k / members for k in range(members)]),
    "Monitor": lambda members, classes: Monitor(),
    "Reinforced": lambda members, classes: Reinforced(classes, seed=5),
}
MAY_BE_SILENT = ("Monitor", "Reinforced")
BY_CONTENT = ("Uniform", "Entropy", "Confidence", "Gradient", "Learned", "Monitor")

makers = pytest.mark.parametrize("name", MAKERS)
shapes = st.sampled_from([(1,), (5,), (2, 3), (3, 1)])


def weights_of(name: str, situation: Situation) -> Tensor:
    teachers, student, _, _ = situation
    weights = MAKERS[name](max(len(teachers), 1), student.logits.shape[-1])(*situation)
    assert isinstance(weights, Tensor)
    return weights


def test_every_weighting_is_tested_here() -> None:
    exported = set(shelf.__all__) - {"Weighting"}
    assert exported == set(MAKERS) - {"DroppedPerSample"}
    assert all(issubclass(getattr(shelf, name), Weighting) for name in exported)


@makers
@PROPERTY
@given(
    seed=st.integers(0, 10**6),
    members=st.integers(1, 4),
    shape=shapes,
    classes=st.integers(2, 6),
    scale=st.sampled_from([0.0, 1.0, 1e4]),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    step=st.integers(0, 1000),
)
def test_weights_are_a_distribution_over_the_teachers(
    situation: Situations,
    name: str,
    seed: int,
    members: int,
    shape: tuple[int, ...],
    classes: int,
    scale: float,
    dtype: torch.dtype,
    step: int,
) -> None:
    given_ = situation(seed, members, shape, classes, scale, dtype, step)
    weights = weights_of(name, given_)
    assert weights.shape == (members, *shape)
    assert weights.dtype == torch.promote_types(dtype, torch.float32)
    assert weights.isfinite().all()
    assert (weights >= 0).all()
    total = weights.sum(0)
    one = (total - 1).abs() < 1e-6
    assert (one | (total == 0)).all() if name in MAY_BE_SILENT else one.all()


@makers
@pytest.mark.parametrize("shape", [(3,), (2, 3)])
def test_without_teachers_there_are_no_weights(
    situation: Situations, name: str, shape: tuple[int, ...]
) -> None:
    weights = weights_of(name, situation(members=0, shape=shape))
    assert weights.shape == (0, *shape)
    assert weights.dtype == torch.float64


@pytest.mark.parametrize("name", [name for name in MAKERS if name not in MAY_BE_SILENT])
def test_one_teacher_is_plain_distillation(situation: Situations, name: str) -> None:
    weights = weights_of(name, situation(members=1))
    assert torch.equal(weights, torch.ones_like(weights))


@pytest.mark.parametrize("name", MAY_BE_SILENT)
def test_one_teacher_speaks_fully_or_not_at_all(situation: Situations, name: str) -> None:
    weights = weights_of(name, situation(members=1, shape=(100,)))
    assert set(weights.flatten().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("name", [name for name in MAKERS if name != "Reinforced"])
@PROPERTY
@given(seed=st.integers(0, 10**6), members=st.integers(2, 4), shape=shapes)
def test_identical_teachers_are_one_teacher(
    situation: Situations, name: str, seed: int, members: int, shape: tuple[int, ...]
) -> None:
    """For the student: the same loss and the same gradient. A policy may decide differently."""
    teachers, student, batch, progress = situation(seed, members, shape)
    student = Output(student.logits.requires_grad_())
    losses, gradients = [], []
    for said in (teachers[:1] * members, teachers[:1]):
        weights = weights_of(name, (said, student, batch, progress))
        loss = Term(Soft(2.0))(student, said, weights, batch, progress)
        losses.append(loss.detach())
        gradients.append(torch.autograd.grad(loss, student.logits)[0])
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("name", BY_CONTENT)
@PROPERTY
@given(
    seed=st.integers(0, 10**6),
    order=st.permutations(range(4)),
    shape=shapes,
    scale=st.sampled_from([1.0, 1e4]),
)
def test_the_order_of_the_teachers_does_not_matter(
    situation: Situations,
    name: str,
    seed: int,
    order: list[int],
    shape: tuple[int, ...],
    scale: float,
) -> None:
    teachers, student, batch, progress = situation(seed, 4, shape, scale=scale)
    weights = weights_of(name, (teachers, student, batch, progress))
    moved = tuple(teachers[k] for k in order)
    got = weights_of(name, (moved, student, batch, progress))
    torch.testing.assert_close(got, weights[order], rtol=1e-5, atol=1e-5)


@makers
def test_nothing_flows_back_into_teachers_or_student(situation: Situations, name: str) -> None:
    teachers, student, batch, progress = situation()
    teachers = tuple(Output(teacher.logits.requires_grad_()) for teacher in teachers)
    student = Output(student.logits.requires_grad_())
    weights = weights_of(name, (teachers, student, batch, progress))
    assert weights.requires_grad == (name == "Learned")
    if weights.requires_grad:
        torch.autograd.backward(weights.square().sum())
    assert student.logits.grad is None
    assert all(teacher.logits.grad is None for teacher in teachers)


@makers
def test_the_same_situation_gives_the_same_weights(situation: Situations, name: str) -> None:
    """A resumed run continues like one that was not stopped: nothing depends on calls before."""
    weighting = MAKERS[name](3, 5)
    first = weighting(*situation(step=7))
    weighting(*situation(seed=1, step=8))
    torch.rand(3)
    assert torch.equal(weighting(*situation(step=7)), first)


@makers
def test_a_weighting_that_needs_labels_refuses_to_go_without(
    situation: Situations, name: str
) -> None:
    teachers, student, batch, progress = situation()
    batch.target[1] = UNLABELLED
    weighting = MAKERS[name](3, 5)
    if not weighting.needs_labels:
        assert weighting(teachers, student, batch, progress).isfinite().all()
        return
    message = f"{type(weighting).__name__} needs a label for every sample, got 1 of 4 without one"
    with pytest.raises(ValueError, match=message):
        weighting(teachers, student, batch, progress)


@makers
def test_what_a_weighting_says_about_itself(situation: Situations, name: str) -> None:
    weighting = MAKERS[name](3, 5)
    assert weighting.needs_labels == (name in ("Confidence", "Reinforced"))
    assert not weighting.needs_accuracies  # the one of Best is made with the accuracies
    assert weighting.learns_afterwards == (name == "Reinforced")
    assert bool(list(weighting.parameters())) == (name in ("Learned", "Reinforced"))
    assert not list(weighting.buffers())
    given_ = situation()
    teachers, student, batch, progress = given_
    weights = weighting(*given_)
    for value in weighting.measurements(weights).values():
        assert value.shape == ()
        assert not value.requires_grad
    terms = weighting.afterwards(weights, teachers, student, student, batch, progress)
    assert bool(terms) == weighting.learns_afterwards
    assert all(term.shape == () and term.requires_grad for term in terms.values())


@makers
def test_teachers_with_other_classes_are_refused(situation: Situations, name: str) -> None:
    """By the objective where the weighting does not look at what they say."""
    teachers, student, batch, progress = situation()
    wrong = (*teachers[:2], Output(torch.zeros(4, 6)))
    weighting = MAKERS[name](3, 5)
    with pytest.raises(ValueError, match=r"teacher 2 must have the student's shape \(4, 5\)"):
        Soft()(student, wrong, weighting(wrong, student, batch, progress), batch, progress)
