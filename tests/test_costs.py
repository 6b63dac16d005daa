"""What a predictor costs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ensemble_kd.costs import cost, multiply_adds, size
from ensemble_kd.networks import Bert, BiLstm, Cnn, Mlp
from ensemble_kd.teachers import Foreign, Frozen, Mixture, Numbered
from ensemble_kd.types import Output, Tokens


class Tied(nn.Module):
    """Two layers of one weight, and a buffer of int64."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False)
        self.second.weight = self.first.weight
        self.register_buffer("count", torch.zeros(3, dtype=torch.int64))

    def forward(self, inputs: Tensor) -> Tensor:
        said: Tensor = self.second(self.first(inputs))
        return said


class Elsewhere(Foreign):
    def forward(self, inputs: Tensor) -> Output:
        return Output(inputs[:, :2])


class Recorded(Numbered):
    def of(self, index: Tensor) -> Output:
        return Output(torch.zeros(len(index), 2))


def tokens(samples: int, length: int = 12) -> Tokens:
    ids = torch.ones(samples, length, dtype=torch.int64)
    return Tokens(ids, ids.bool(), ids * 0, torch.zeros(samples, 4, dtype=torch.uint8))


def test_shared_weights_are_counted_once_and_buffers_too() -> None:
    assert size(Tied()) == 6 * 6 * 4 + 3 * 8


@pytest.mark.parametrize("samples", [1, 7])
def test_products_of_layers_are_counted_from_their_shapes(samples: int) -> None:
    assert multiply_adds(nn.Linear(6, 5), torch.zeros(samples, 6)) == samples * 30
    conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
    assert multiply_adds(conv, torch.zeros(samples, 3, 10, 10)) == samples * 5 * 5 * 8 * 3 * 9
    grouped = nn.Conv2d(4, 8, 3, groups=4, bias=False)
    assert multiply_adds(grouped, torch.zeros(samples, 4, 5, 5)) == samples * 3 * 3 * 8 * 9


def test_recurrent_layers_and_attention_are_counted_too() -> None:
    length, width, inner = 12, 5, 7
    lstm = BiLstm(30, [length], 2, embedding=width, width=inner, hidden=4)
    gates = 2 * length * 4 * inner * (width + inner)
    assert multiply_adds(lstm, tokens(1)) >= gates
    assert multiply_adds(lstm, tokens(1)) < 1.2 * gates
    assert multiply_adds(lstm, tokens(3)) == 3 * multiply_adds(lstm, tokens(1))
    bert = Bert(30, [length], 2, layers=2, width=8, heads=2, inner=32)
    linear = length * (4 * 8 * 8 + 2 * 8 * 32)  # queries, keys, values, output; and the two between
    attention = 2 * length * length * 8
    assert multiply_adds(bert, tokens(1)) == pytest.approx(2 * (linear + attention), rel=0.05)


class Attending(nn.Module):
    """Heads over the inputs themselves, without weights."""

    def forward(self, inputs: Tensor) -> Tensor:
        parts = inputs.unflatten(-1, (4, -1)).transpose(1, 2)
        return nn.functional.scaled_dot_product_attention(parts, parts, parts)


@pytest.mark.parametrize("samples", [1, 3])
def test_attention_is_counted_where_torch_would_fuse_it(samples: int) -> None:
    length, width, inner = 10, 16, 32
    inputs = torch.randn(samples, length, width)
    attention = 2 * length * length * width
    linear = length * (4 * width * width + 2 * width * inner)
    layer = nn.TransformerEncoderLayer(width, 4, inner, batch_first=True)
    fast = torch.backends.mha.get_fastpath_enabled()
    assert multiply_adds(Attending(), inputs) == samples * attention
    assert multiply_adds(layer, inputs) == samples * (linear + attention)
    assert torch.backends.mha.get_fastpath_enabled() == fast


def test_a_mixture_costs_what_its_members_cost() -> None:
    small, large = Cnn([1, 8, 8], 10, widths=[4]), Mlp([1, 8, 8], 10, hidden=[16])
    one = torch.zeros(1, 1, 8, 8)
    both = cost(Mixture([small, Frozen(large)]), torch.zeros(5, 1, 8, 8))
    assert both.parameters == sum(p.numel() for n in (small, large) for p in n.parameters())
    assert both.bytes == size(small) + size(large)
    assert both.multiply_adds == multiply_adds(small, one) + multiply_adds(large, one)


def test_networks_are_left_as_they_were() -> None:
    network = Cnn([1, 8, 8], 10, widths=[4]).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    found = cost(network, torch.rand(5, 1, 8, 8))
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert found.latency is not None
    assert found.milliseconds_per_1000 is not None
    assert 0 < found.latency.p50 <= found.latency.p95


def test_of_what_runs_elsewhere_only_the_time_is_known_and_of_records_nothing() -> None:
    inputs = torch.zeros(4, 3)
    foreign = cost(Mixture([Elsewhere(), nn.Linear(3, 2)]), inputs)
    assert foreign[:3] == (None, None, None)
    assert foreign.latency is not None
    assert cost(Mixture([Recorded(), nn.Linear(3, 2)]), inputs) == (None,) * 5
