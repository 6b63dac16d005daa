from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from ensemble_kd.errors import UserError
from ensemble_kd.weightings import Fixed


def test_they_are_divided_by_their_sum(situation: Callable[..., Any]) -> None:
    weights = Fixed([1, 0, 4])(*situation(members=3))
    torch.testing.assert_close(weights[:, 0].tolist(), [0.2, 0.0, 0.8])
    assert torch.equal(weights, weights[:, :1].expand(3, 4))


@pytest.mark.parametrize("given", [[1.0, 1.0], [1.0] * 4])
def test_their_number_must_match(situation: Callable[..., Any], given: list[float]) -> None:
    with pytest.raises(UserError, match=f"got {len(given)} weights for 3 teachers"):
        Fixed(given)(*situation(members=3))


@pytest.mark.parametrize("given", [[1.0, -0.1], [math.nan, 1.0], [math.inf, 1.0]])
def test_each_must_be_finite_and_not_negative(given: list[float]) -> None:
    with pytest.raises(ValueError, match="weights must be finite numbers >= 0, got"):
        Fixed(given)


@pytest.mark.parametrize("given", [[], [0.0], [0.0, 0.0], [1e308, 1e308]])
def test_their_sum_must_be_positive(given: list[float]) -> None:
    with pytest.raises(ValueError, match="weights must have a positive finite sum, got"):
        Fixed(given)
