from __future__ import annotations

import pytest
import torch

from ensemble_kd.functional import complement, normalise, spread


def test_normalise_by_hand() -> None:
    got = normalise(torch.tensor([[1.0, 0.0, 0.0], [3.0, 0.0, 5.0]]))
    assert torch.equal(got, torch.tensor([[0.25, 0.5, 0.0], [0.75, 0.5, 1.0]]))


def test_normalise_has_a_finite_gradient_where_all_are_zero() -> None:
    scores = torch.tensor([[0.0, 1.0], [0.0, 2.0]], requires_grad=True)
    torch.autograd.backward(normalise(scores)[0].sum())
    assert scores.grad is not None
    assert torch.allclose(scores.grad, torch.tensor([[0.0, 2 / 9], [0.0, -1 / 9]]))


@pytest.mark.parametrize("samples", [(), (4,), (2, 3)])
def test_nobody_is_normalised_to_nobody(samples: tuple[int, ...]) -> None:
    assert normalise(torch.empty(0, *samples)).shape == (0, *samples)
    assert complement(torch.empty(0, *samples)).shape == (0, *samples)


def test_complement_by_hand() -> None:
    got = complement(torch.tensor([0.5, 0.3, 0.2]))
    assert torch.allclose(got, torch.tensor([0.25, 0.35, 0.4]))


def test_one_teacher_keeps_all() -> None:
    assert torch.equal(complement(torch.ones(1, 3)), torch.ones(1, 3))


def test_spread_per_teacher() -> None:
    got = spread(torch.tensor([0.25, 0.75], dtype=torch.float64), torch.zeros(2, 3, 5))
    assert got.shape == (2, 2, 3)
    assert got.dtype == torch.float32
    assert (got[0] == 0.25).all()
    assert (got[1] == 0.75).all()


def test_spread_per_teacher_when_there_are_as_many_teachers_as_samples() -> None:
    got = spread(torch.tensor([0.25, 0.75]), torch.zeros(2, 5))
    assert torch.equal(got, torch.tensor([[0.25, 0.25], [0.75, 0.75]]))


def test_spread_per_sample_keeps_the_values_and_widens_the_type() -> None:
    weights = torch.tensor([[True, False, True]])
    got = spread(weights, torch.zeros(3, 5, dtype=torch.bfloat16))
    assert torch.equal(got, torch.tensor([[1.0, 0.0, 1.0]]))
    assert spread(weights, torch.zeros(3, 5, dtype=torch.float64)).dtype == torch.float64
