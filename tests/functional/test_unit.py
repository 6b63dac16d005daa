from __future__ import annotations

import math

import pytest
import torch

from ensemble_kd.functional import unit


@pytest.mark.parametrize("shape", [(4,), (3, 5), (2, 3, 4), (1, 1)])
def test_every_vector_has_length_one(shape: tuple[int, ...]) -> None:
    vectors = torch.randn(*shape, dtype=torch.float64)
    rows = vectors.reshape(-1, shape[-1]).tolist()
    expected = [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in rows]
    assert unit(vectors).reshape(-1, shape[-1]).tolist() == [pytest.approx(row) for row in expected]


def test_zero_stays_zero_and_its_gradient_is_finite() -> None:
    vectors = torch.zeros(2, 3, requires_grad=True)
    said = unit(vectors)
    assert (said == 0).all()
    said.sum().backward()
    assert vectors.grad is not None
    assert torch.isfinite(vectors.grad).all()


def test_length_and_direction_part() -> None:
    vectors = torch.randn(5, 4)
    torch.testing.assert_close(unit(1e4 * vectors), unit(1e-4 * vectors))
