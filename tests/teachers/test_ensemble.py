from __future__ import annotations

import torch
from torch import nn

from ensemble_kd.teachers import Ensemble, Frozen
from ensemble_kd.types import Batch, Progress

START = Progress(0, 0, 0.0)


def batch() -> Batch:
    inputs = torch.arange(12.0).reshape(3, 4)
    return Batch(inputs, torch.zeros(3, dtype=torch.long), torch.arange(3))


class Times(nn.Module):
    """Multiplies with a number and counts how often it was asked."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor
        self.calls = 0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.factor * inputs


def test_the_outputs_come_in_the_order_of_the_teachers() -> None:
    factors = [3.0, 1.0, 2.0]
    ensemble = Ensemble([Frozen(Times(factor)) for factor in factors])
    said = ensemble(batch(), START)
    assert len(ensemble) == 3
    assert isinstance(said, tuple)
    for output, factor in zip(said, factors, strict=True):
        assert torch.equal(output.logits, factor * batch().inputs)


def test_each_teacher_is_asked_once() -> None:
    networks = [Times(1.0), Times(2.0)]
    Ensemble([Frozen(network) for network in networks])(batch(), START)
    assert [network.calls for network in networks] == [1, 1]


def test_there_may_be_no_teacher() -> None:
    ensemble = Ensemble()
    assert len(ensemble) == 0
    assert ensemble(batch(), START) == ()


def test_it_hides_its_teachers_and_moves_with_them() -> None:
    network = nn.Linear(4, 2)
    ensemble = Ensemble([Frozen(network)])
    assert list(ensemble.parameters()) == []
    assert ensemble.state_dict() == {}
    ensemble.double()
    assert network.weight.dtype == torch.float64
    ensemble.train()
    assert not network.training
