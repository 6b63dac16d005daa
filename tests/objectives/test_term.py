from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ensemble_kd.objectives import Label, Objective, Term
from ensemble_kd.schedules import Linear
from ensemble_kd.types import UNLABELLED, Batch, Output, Progress

PROPERTY = settings(deadline=None, derandomize=True, max_examples=40)
START = Progress(0, 0, 0.0)


class Own(Objective):
    """The first logit of each sample, times a parameter: easy to follow through a term."""

    needs_teachers = False

    def __init__(self, needs_labels: bool = False) -> None:
        super().__init__()
        self.needs_labels = needs_labels
        self.factor = torch.nn.Parameter(torch.ones(()))

    def forward(
        self,
        student: Output,
        teachers: tuple[Output, ...],
        weights: Tensor,
        batch: Batch,
        progress: Progress,
    ) -> Tensor:
        return self.factor * student.logits[..., 0]


def loss(term: Term, logits: Tensor, mask: Tensor | None, progress: Progress = START) -> Tensor:
    shape = logits.shape[:-1]
    target = torch.zeros(shape, dtype=torch.long)
    if mask is not None:
        target[~mask] = UNLABELLED
    batch = Batch(None, target, torch.arange(shape[0]), mask)
    scalar = term(Output(logits), (), torch.empty(0, *shape), batch, progress)
    assert isinstance(scalar, Tensor)
    return scalar


@PROPERTY
@given(
    st.lists(st.tuples(st.floats(-10, 10, width=32), st.booleans()), min_size=1, max_size=8),
    st.floats(0, 5, width=32),
    st.booleans(),
)
def test_it_is_the_weighted_mean_over_what_counts(
    samples: list[tuple[float, bool]], weight: float, needs_labels: bool
) -> None:
    logits = torch.tensor([[value] for value, _ in samples], dtype=torch.float64)
    mask = torch.tensor([known for _, known in samples])
    got = loss(Term(Own(needs_labels), weight), logits, mask)
    counted = [value for value, known in samples if known or not needs_labels]
    want = weight * math.fsum(counted) / len(counted) if counted else 0.0
    assert got.item() == pytest.approx(want, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("shape", [(5,), (2, 3)])
def test_without_a_mask_all_count(shape: tuple[int, ...]) -> None:
    logits = torch.randn(*shape, 4)
    torch.testing.assert_close(loss(Term(Own(True)), logits, None), logits[..., 0].mean())


def test_an_empty_mask_gives_zero_with_zero_gradient() -> None:
    logits = torch.randn(4, 3, requires_grad=True)
    objective = Own(needs_labels=True)
    scalar = loss(Term(objective), logits, torch.zeros(4, dtype=torch.bool))
    assert scalar.item() == 0
    assert scalar.requires_grad
    by_logits, by_factor = torch.autograd.grad(scalar, (logits, objective.factor))
    assert torch.equal(by_logits, torch.zeros(4, 3))
    assert by_factor.item() == 0


def test_an_empty_batch_gives_zero() -> None:
    assert loss(Term(Own()), torch.empty(0, 3), None).item() == 0


@pytest.mark.parametrize("garbage", [math.nan, math.inf])
def test_nonsense_on_an_unlabelled_sample_does_not_count(garbage: float) -> None:
    logits = torch.tensor([[1.0], [garbage], [3.0]])
    assert loss(Term(Own(True)), logits, torch.tensor([True, False, True])).item() == 2


def test_only_labelled_samples_receive_gradient() -> None:
    logits = torch.randn(4, 3, requires_grad=True)
    mask = torch.tensor([True, False, False, True])
    (gradient,) = torch.autograd.grad(loss(Term(Label(), 2.0), logits, mask), logits)
    assert torch.equal(gradient[~mask], torch.zeros(2, 3))
    one_hot = torch.tensor([1.0, 0.0, 0.0])
    torch.testing.assert_close(
        gradient[mask], 2 * (logits.detach()[mask].softmax(-1) - one_hot) / 2
    )


@pytest.mark.parametrize("needs_labels", [True, False])
def test_two_halves_sum_to_the_whole(needs_labels: bool) -> None:
    """Weighted by what counts in each half, which is how a mean over samples is put together."""
    term = Term(Own(needs_labels), 0.7)
    logits, mask = torch.randn(7, 2, dtype=torch.float64), torch.arange(7) % 3 == 0
    counts, sums = [], []
    for part in (slice(0, 3), slice(3, 7), slice(0, 7)):
        count = int(mask[part].sum()) if needs_labels else len(logits[part])
        counts.append(count)
        sums.append(count * loss(term, logits[part], mask[part]))
    assert counts[0] + counts[1] == counts[2]
    torch.testing.assert_close(sums[0] + sums[1], sums[2])


@pytest.mark.parametrize(("fraction", "factor"), [(0.0, 0.0), (0.25, 0.5), (1.0, 2.0)])
def test_the_schedule_multiplies(fraction: float, factor: float) -> None:
    logits = torch.full((2, 1), 3.0)
    scalar = loss(Term(Own(), 0.5, Linear(0.0, 2.0)), logits, None, Progress(1, 0, fraction))
    assert scalar.item() == pytest.approx(0.5 * factor * 3)


def test_a_weight_of_zero_gives_zero_but_keeps_the_graph() -> None:
    logits = torch.randn(4, 3, requires_grad=True)
    objective = Own()
    scalar = loss(Term(objective, 0.0), logits, None)
    assert scalar.item() == 0
    by_logits, by_factor = torch.autograd.grad(scalar, (logits, objective.factor))
    assert torch.equal(by_logits, torch.zeros(4, 3))
    assert by_factor.item() == 0


def test_it_trains_what_the_objective_learns() -> None:
    objective = Own()
    assert list(Term(objective).parameters()) == [objective.factor]


@pytest.mark.parametrize("weight", [-0.1, math.inf, math.nan])
def test_a_weight_must_be_finite_and_not_negative(weight: float) -> None:
    with pytest.raises(ValueError, match="weight must be a finite number >= 0, got"):
        Term(Own(), weight)


def test_a_mask_of_another_shape_is_refused() -> None:
    batch = Batch(None, torch.zeros(3, 3), torch.arange(3), torch.ones(3, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"mask must have .* \(3, 3\), got \(3,\)"):
        Term(Own(True))(Output(torch.zeros(3, 3, 2)), (), torch.empty(0, 3, 3), batch, START)


class Product(Objective):
    """Inner products of logits of the student, a teacher and the weights: too large for float16."""

    def forward(
        self,
        student: Output,
        teachers: tuple[Output, ...],
        weights: Tensor,
        batch: Batch,
        progress: Progress,
    ) -> Tensor:
        said = student.logits @ teachers[0].logits.mT + student.features["a"].sum()
        seen = {student.logits.dtype, student.features["a"].dtype, weights.dtype, said.dtype}
        assert seen | {teachers[0].logits.dtype} == {torch.float32}
        return weights[0] * said.diagonal()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_an_objective_knows_nothing_of_mixed_precision(dtype: torch.dtype) -> None:
    logits = torch.full((2, 3), 300.0, dtype=dtype, requires_grad=True)
    said = Output(logits, {"a": torch.ones(2, 4, dtype=dtype)})
    batch = Batch(None, torch.zeros(2, dtype=torch.long), torch.arange(2))
    with torch.autocast("cpu", dtype=dtype):
        scalar = Term(Product())(said, (said,), torch.ones(1, 2, dtype=dtype), batch, START)
        assert torch.is_autocast_enabled("cpu")
    assert scalar.dtype == torch.float32
    assert scalar.item() == 3 * 300.0**2 + 8
    scalar.backward()
    assert logits.grad is not None
    assert logits.grad.dtype == dtype


def test_of_sequences_only_places_count() -> None:
    logits = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    places = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]], dtype=torch.bool)
    padded = logits.clone()
    padded[~places] = torch.nan
    expected = [logits[i, j, 0] for i in range(3) for j in range(4) if places[i, j]]

    said = _of_sequences(Own(), padded, places)

    assert said == pytest.approx(float(sum(expected)) / 6)


class Whole(Own):
    """One value for each sequence."""

    def forward(self, student: Output, *others: Any) -> Tensor:
        return super().forward(student, *others)[:, 0]


def test_a_value_for_a_whole_sequence_counts_once() -> None:
    logits = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    places = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]], dtype=torch.bool)

    said = _of_sequences(Whole(), logits, places)
    assert said == pytest.approx(float(logits[:, 0, 0].mean()))


@pytest.mark.parametrize("make", [Own, Whole])
def test_parts_of_a_step_by_their_share_of_sequences_are_the_whole(make: Any) -> None:
    logits = torch.randn(5, 4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    places = torch.arange(4) < torch.tensor([1, 4, 2, 0, 3])[:, None]
    found = sum(
        len(places[part]) / 5 * _of_sequences(make(), logits[part], places[part], placed=10 / 5)
        for part in (slice(0, 2), slice(2, 3), slice(3, 4), slice(4, 5))
    )
    assert found == pytest.approx(_of_sequences(make(), logits, places))


def test_a_step_without_a_place_gives_zero() -> None:
    assert _of_sequences(Own(), torch.ones(2, 3, 1), torch.zeros(2, 3).bool(), placed=0.0) == 0


def test_a_batch_without_a_place_gives_zero() -> None:
    places = torch.zeros(3, 4, dtype=torch.bool)
    term = Term(Own())
    batch = Batch(None, torch.zeros(3, 4).long(), torch.arange(3), places, places=places)
    said = term(Output(torch.ones(3, 4, 2)), (), torch.empty(0, 3, 4), batch, START)
    said.backward()
    assert said == 0
    assert term.objective.factor.grad == 0


def _of_sequences(
    objective: Objective, logits: Tensor, places: Tensor, placed: float | None = None
) -> float:
    target = torch.full(places.shape, UNLABELLED)
    mask = torch.zeros_like(places)
    index = torch.arange(len(places))
    batch = Batch(None, target, index, mask, places=places, placed=placed)
    weights = torch.empty(0, *places.shape)
    said = Term(objective)(Output(logits), (), weights, batch, START)
    return float(said.detach())
