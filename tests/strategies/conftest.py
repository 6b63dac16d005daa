"""Small networks, batches and terms for the tests of strategies."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from ensemble_kd.objectives import Label, Soft, Term
from ensemble_kd.teachers import Ensemble, Frozen
from ensemble_kd.types import UNLABELLED, Batch, Progress

CLASSES = 4
START = Progress(0, 0, 0.0)


@pytest.fixture
def network() -> Callable[[int], nn.Module]:
    """Makes a small network in float64 from a seed."""

    def make(seed: int) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, CLASSES)).double()

    return make


@pytest.fixture
def ensemble(network: Callable[[int], nn.Module]) -> Callable[[int], Ensemble]:
    """Makes an ensemble of so many teachers."""
    return lambda count: Ensemble([Frozen(network(100 + number)) for number in range(count)])


@pytest.fixture
def batch() -> Batch:
    """Seven samples, three of them without a label."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    mask = torch.tensor([True, False, True, True, False, True, False])
    target = torch.tensor([0, UNLABELLED, 3, 1, UNLABELLED, 2, UNLABELLED])
    return Batch(inputs, target, torch.arange(7), mask)


@pytest.fixture
def terms() -> Callable[[], dict[str, Term]]:
    """Makes the terms of ordinary distillation."""
    return lambda: {
        "label": Term(Label(), weight=0.3),
        "soft": Term(Soft(temperature=2.0), weight=0.7),
    }
