"""A network behind something that prepares its inputs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ensemble_kd.errors import UserError
from ensemble_kd.networks.prepared import Prepared, inside
from ensemble_kd.networks.shapes import layer_shapes
from ensemble_kd.networks.taps import listen


class Named(nn.Module):
    """Takes arguments by name and answers like a network of transformers, in half precision."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, ids: Tensor, mask: Tensor) -> Any:
        return SimpleNamespace(logits=self.head(ids * mask).half())


class Split(nn.Module):
    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        return {"mask": inputs[:, 3:], "ids": inputs[:, :3]}


def test_arguments_by_name_and_logits_in_single_precision() -> None:
    network = Named()
    inputs = torch.randn(4, 6)
    said = Prepared(network, Split())(inputs)
    assert said.logits.dtype == torch.float32
    expected = network.head(inputs[:, :3] * inputs[:, 3:]).half().float()
    assert torch.equal(said.logits, expected)


def test_layers_are_those_of_the_innermost_network() -> None:
    network = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    outer = Prepared(Prepared(network, nn.Tanh()), nn.ReLU())
    assert inside(outer) is network
    assert inside(network) is network
    inputs = torch.randn(4, 3)
    said = listen(outer, inputs, ["0", "2.input"])
    assert torch.equal(said.features["0"], network[0](inputs.relu().tanh()))
    assert said.features["2.input"].shape == (4, 5)
    assert [name for name, _ in layer_shapes(outer, [3])] == ["0", "1", "2"]
    with pytest.raises(UserError, match="Sequential has no module 'network'"):
        listen(outer, inputs, ["network"])
