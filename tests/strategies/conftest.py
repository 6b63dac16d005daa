"""Small networks, batches and terms for the tests of strategies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from ensemble_kd.assessment import named_predictors
from ensemble_kd.config import compose
from ensemble_kd.engine import CURVES, Engine, Product
from ensemble_kd.objectives import Label, Objective, Soft, Term
from ensemble_kd.plan import Plan, make_plan
from ensemble_kd.report.curves import read_points
from ensemble_kd.store import Store
from ensemble_kd.teachers import Ensemble, Frozen
from ensemble_kd.training import accuracy
from ensemble_kd.types import UNLABELLED, Batch, Output, Progress

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
def images() -> Batch:
    """Seven images of 6 x 6 values, three of them without a label."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(7, 1, 6, 6, generator=generator, dtype=torch.float64)
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


class Distance(Objective):
    """Mean squared distance from the teachers, who are not kept from receiving gradient."""

    def forward(
        self,
        student: Output,
        teachers: tuple[Output, ...],
        weights: Tensor,
        batch: Batch,
        progress: Progress,
    ) -> Tensor:
        apart = [(student.logits - each.logits).square().sum(-1) for each in teachers]
        return torch.stack(apart).mean(0)


@pytest.fixture
def distance() -> dict[str, Term]:
    """A term that leaves it to the strategy to keep gradient from those who teach."""
    return {"distance": Term(Distance())}


class Trained(NamedTuple):
    """What the stages of a configuration have become.

    Attributes:
        plan: the stages.
        products: what became of each, by its name.
        networks: every predictor of the run, by name.
        accuracies: of each of them, on the validation split.
        curves: the values of each metric, one per epoch, by stage and metric.
    """

    plan: Plan
    products: Mapping[str, Product]
    networks: Mapping[str, nn.Module]
    accuracies: Mapping[str, float]
    curves: Mapping[tuple[str, str], list[float]]


@pytest.fixture
def trained() -> Callable[..., Trained]:
    """Trains the stages of a configuration, given as overrides."""

    def train(*overrides: str) -> Trained:
        plan = make_plan(compose([*overrides]))
        products = Engine(plan, Store(Path("store")), Path("run"), logger=False).products()
        networks = named_predictors(plan, products)
        known = {
            name: accuracy(network.eval(), plan.data.val_dataloader())
            for name, network in networks.items()
        }
        curves: dict[tuple[str, str], list[float]] = {}
        for stage, product in products.items():
            for point in read_points(product.artefact.folder / CURVES):
                curves.setdefault((stage, point.name), []).append(point.value)
        return Trained(plan, products, networks, known, curves)

    return train
