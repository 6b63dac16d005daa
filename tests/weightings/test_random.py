from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch

from ensemble_kd.weightings import Random


def chosen(situation: Callable[..., Any], seed: int, steps: int) -> list[int]:
    weighting = Random(seed)
    said = []
    for step in range(steps):
        weights = weighting(*situation(members=3, step=step))
        assert torch.equal(weights, weights[:, :1].expand(3, 4))
        assert sorted(weights[:, 0].tolist()) == [0, 0, 1]
        said.append(int(weights[:, 0].argmax()))
    return said


def test_one_teacher_per_batch_all_equally_likely(situation: Callable[..., Any]) -> None:
    said = chosen(situation, 0, 1200)
    # The standard deviation of each count is 16.
    assert all(abs(said.count(k) - 400) < 65 for k in range(3))
    # Nor do they come in a fixed order.
    assert len(set(itertools.pairwise(said))) == 9


def test_a_seed_is_a_sequence(situation: Callable[..., Any]) -> None:
    assert chosen(situation, 1, 30) == chosen(situation, 1, 30)
    assert chosen(situation, 1, 30) != chosen(situation, 2, 30)
