from __future__ import annotations

import pytest
import torch
from torch import nn

from ensemble_kd.build import build
from ensemble_kd.export import constructor_of, count_parameters
from ensemble_kd.networks import Cnn, Mlp


class Hiding(nn.Module):
    """Does not keep what it was made from."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, 2)


class Lying(nn.Module):
    """Keeps something else than what it was made from."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width + 1
        self.layer = nn.Linear(width, 2)


@pytest.mark.parametrize("network", [Cnn([1, 8, 8], 10, [4, 8]), Mlp([6], 3, [5])])
def test_the_node_makes_one_like_it(network: nn.Module) -> None:
    before = torch.get_rng_state()
    node = constructor_of(network)
    assert node is not None
    assert torch.equal(before, torch.get_rng_state())
    again = build(node, "network")
    assert type(again) is type(network)
    again.load_state_dict(network.state_dict())


@pytest.mark.parametrize(
    "network",
    [Hiding(3), Lying(3), nn.Sequential(), nn.Linear(3, 2)],
    ids=["hid", "lied", "list", "own"],
)
def test_what_cannot_be_read_from_the_object_is_not_guessed(network: nn.Module) -> None:
    assert constructor_of(network) is None


def test_a_network_that_was_changed_afterwards_is_not_the_one_of_its_arguments() -> None:
    network = Mlp([6], 3, [5])
    network.extra = nn.Linear(1, 1)
    assert constructor_of(network) is None


def test_a_class_inside_a_function_cannot_be_imported() -> None:
    class Local(nn.Module):
        pass

    assert constructor_of(Local()) is None


def test_shared_weights_count_once_and_buffers_do_not() -> None:
    shared = nn.Linear(4, 4)
    network = nn.Sequential(shared, nn.BatchNorm1d(4), shared)
    assert count_parameters(network) == 4 * 4 + 4 + 2 * 4
