"""What holds whatever the teachers say: properties of the merge, weighting by weighting."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from ensemble_kd.functional import Merge
from ensemble_kd.objectives import Label, Soft, Term
from ensemble_kd.strategies.lesson import Lesson
from ensemble_kd.types import Batch, Output, Progress
from ensemble_kd.weightings import Confidence, Entropy, Gradient, Monitor, Uniform, Weighting

CLASSES, START = 4, Progress(0, 0, 0.0)
MAKERS: dict[str, Callable[[], Weighting]] = {
    "uniform": Uniform,
    "entropy": Entropy,
    "confidence": Confidence,
    "gradient": Gradient,
}
makers = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
merges = pytest.mark.parametrize("merge", ["losses", "probabilities", "logits"])
few = settings(max_examples=15, deadline=None)


def lesson(make: Callable[[], Weighting], merge: Merge) -> Lesson:
    terms = {"label": Term(Label(), 0.4), "soft": Term(Soft(3.0, merge), 0.6)}
    return Lesson(terms, make()).double()


def situation(seed: int, samples: int, teachers: int) -> tuple[Batch, Output, list[Output]]:
    generator = torch.Generator().manual_seed(seed)

    def logits() -> Tensor:
        return 3 * torch.randn(samples, CLASSES, generator=generator, dtype=torch.float64)

    target = torch.randint(CLASSES, (samples,), generator=generator)
    batch = Batch(None, target, torch.arange(samples))
    return batch, Output(logits()), [Output(logits()) for _ in range(teachers)]


def loss(taught: Lesson, student: Output, teachers: list[Output], batch: Batch) -> Tensor:
    weights = taught.weights(student, tuple(teachers), batch, START)
    terms = taught.losses(student, tuple(teachers), weights, batch, START)
    return torch.stack(list(terms.values())).sum()


sizes = (st.integers(0, 10_000), st.integers(1, 6), st.integers(2, 4))


@makers
@few
@given(*sizes)
def test_weights_sum_to_one(
    make: Callable[[], Weighting], seed: int, samples: int, teachers: int
) -> None:
    batch, student, said = situation(seed, samples, teachers)
    weights = lesson(make, "losses").weights(student, tuple(said), batch, START)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(0), torch.ones_like(weights[0]))


@makers
@merges
@few
@given(*sizes)
def test_the_order_of_teachers_does_not_matter(
    make: Callable[[], Weighting], merge: Merge, seed: int, samples: int, teachers: int
) -> None:
    batch, student, said = situation(seed, samples, teachers)
    taught = lesson(make, merge)
    expected = loss(taught, student, said, batch)
    torch.testing.assert_close(loss(taught, student, said[::-1], batch), expected)
    torch.testing.assert_close(loss(taught, student, said[1:] + said[:1], batch), expected)


@makers
@merges
@few
@given(*sizes)
def test_identical_teachers_are_one_and_one_is_plain_distillation(
    make: Callable[[], Weighting], merge: Merge, seed: int, samples: int, teachers: int
) -> None:
    batch, student, (said, *_) = situation(seed, samples, teachers)
    taught = lesson(make, merge)
    student_log = F.log_softmax(student.logits / 3.0, -1)
    teacher = F.softmax(said.logits / 3.0, -1)
    plain = 0.4 * F.cross_entropy(student.logits, batch.target) + 0.6 * 9.0 * F.kl_div(
        student_log, teacher, reduction="batchmean"
    )
    torch.testing.assert_close(loss(taught, student, [said], batch), plain)
    torch.testing.assert_close(loss(taught, student, [said] * teachers, batch), plain)


@few
@given(*sizes)
def test_monitors_speak_together_or_not_at_all(seed: int, samples: int, teachers: int) -> None:
    batch, student, said = situation(seed, samples, teachers)
    weights = lesson(Monitor, "losses").weights(student, tuple(said), batch, START)
    total = weights.sum(0)
    close = torch.isclose(total, torch.ones_like(total)) | (total == 0)
    assert close.all()
