from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from ensemble_kd.errors import UserError
from ensemble_kd.weightings import Best


def test_only_the_best_counts(situation: Callable[..., Any]) -> None:
    weights = Best([0.8, 0.95, 0.9])(*situation(shape=(2, 3)))
    assert torch.equal(weights, torch.tensor([0.0, 1, 0]).double().view(3, 1, 1).expand(3, 2, 3))


def test_of_equals_the_first(situation: Callable[..., Any]) -> None:
    assert Best([0.8, 0.9, 0.9])(*situation())[:, 0].tolist() == [0, 1, 0]


def test_measure_gives_and_replaces_the_accuracies(situation: Callable[..., Any]) -> None:
    weighting = Best()
    weighting.measure([0.1, 0.2, 0.3])
    assert weighting(*situation())[:, 0].tolist() == [0, 0, 1]
    weighting.measure([0.4, 0.2, 0.3])
    assert weighting(*situation())[:, 0].tolist() == [1, 0, 0]


def test_it_is_not_guessed(situation: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match="needs the validation accuracy of each teacher, got none"):
        Best()(*situation())


def test_their_number_must_match(situation: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match="got 2 for 3 teachers"):
        Best([0.1, 0.2])(*situation())


@pytest.mark.parametrize("accuracy", [-0.1, 1.1, 95.0, math.nan])
def test_an_accuracy_is_a_share(accuracy: float) -> None:
    with pytest.raises(ValueError, match=r"accuracies must be in \[0, 1\], got"):
        Best([0.5, accuracy])


def test_accuracies_are_asked_for_only_where_they_are_not_given() -> None:
    assert Best().needs_accuracies
    assert not Best([0.5, 0.6]).needs_accuracies
