from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from ensemble_kd.errors import UserError
from ensemble_kd.networks import Cnn, Mlp, ResNet, check_cut, cut
from ensemble_kd.networks.cut import drop_trunk, resting


def cnn() -> Cnn:
    return Cnn((1, 8, 8), 10, widths=(4, 6, 8))


class TwoStages(nn.Module):
    """A network that runs in the order of its modules, and is no sequence itself."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 6)
        self.blocks = nn.Sequential(nn.Tanh(), nn.Linear(6, 6), nn.Tanh())
        self.last = nn.Linear(6, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        said: Tensor = self.last(self.blocks(self.first(inputs)))
        return said


class Shortcut(TwoStages):
    """Its modules in another order than they stand."""

    def forward(self, inputs: Tensor) -> Tensor:
        first = self.first(inputs)
        said: Tensor = self.last(self.blocks(first) + first)
        return said


class Flattening(nn.Module):
    """Does something between its modules."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.last = nn.Linear(2 * 6 * 6, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        said: Tensor = self.last(self.conv(inputs).flatten(1))
        return said


@pytest.mark.parametrize(
    ("at", "trunk", "head"),
    [
        ("stages.1", ["stages.0"], ["stages.1", "stages.2", "pool", "classifier"]),
        ("stages.2", ["stages.0", "stages.1"], ["stages.2", "pool", "classifier"]),
        ("pool", ["stages"], ["pool", "classifier"]),
        (
            "pool.flatten",
            ["stages", "pool.average"],
            ["pool.flatten", "pool.dropout", "classifier"],
        ),
        ("classifier", ["stages", "pool"], ["classifier"]),
    ],
)
def test_each_module_is_in_its_half(at: str, trunk: list[str], head: list[str]) -> None:
    network = cnn()
    halves = cut(network, at)
    for half, names in ((halves.trunk, trunk), (halves.head, head)):
        assert [id(part) for part in half] == [id(network.get_submodule(n)) for n in names]


@pytest.mark.parametrize(
    ("network", "at"),
    [
        (Cnn((1, 8, 8), 10, widths=(4, 6)), "stages.1"),
        (Cnn((1, 8, 8), 10, widths=(4, 6)), "stages.1.conv"),
        (ResNet((1, 8, 8), 10, depth=8, widths=(4, 4, 6, 8)), "stages.2"),
        (ResNet((1, 8, 8), 10, depth=14, widths=(4, 4, 6, 8)), "stages.1.1"),
        (Mlp((1, 8, 8), 10, hidden=(6, 5)), "layers.1"),
    ],
)
def test_the_halves_are_the_network(network: nn.Module, at: str) -> None:
    inputs = torch.randn(3, 1, 8, 8)
    check_cut(network, at, inputs)
    network.eval()
    halves = cut(network, at)
    assert torch.equal(halves.head(halves.trunk(inputs)), network(inputs))


def test_a_module_that_runs_in_order_can_be_cut_inside_its_sequences() -> None:
    inputs = torch.randn(3, 5)
    network = TwoStages()
    for at in ("blocks", "blocks.1", "last"):
        check_cut(network, at, inputs)


def test_a_module_that_stands_in_two_places_is_in_both() -> None:
    tanh = nn.Tanh()
    network = nn.Sequential(nn.Linear(5, 5), tanh, nn.Linear(5, 5), tanh, nn.Linear(5, 3))
    assert [len(half) for half in cut(network, "4")] == [4, 1]
    check_cut(network, "4", torch.randn(3, 5))


@pytest.mark.parametrize(
    ("network", "inputs"),
    [(Shortcut(), torch.randn(3, 5)), (Flattening(), torch.randn(3, 1, 8, 8))],
)
def test_a_network_in_another_order_is_found_out(network: nn.Module, inputs: Tensor) -> None:
    with pytest.raises(UserError, match=r"^split: \w+ does not run its modules one after the oth"):
        check_cut(network, "last", inputs)


def test_a_head_that_writes_into_the_trunks_output_is_found_out() -> None:
    network = nn.Sequential(nn.Linear(5, 4), nn.ReLU(inplace=True), nn.Linear(4, 3))
    with pytest.raises(UserError, match=r"^split: .* from '1' on changes its input in place"):
        check_cut(network, "1", torch.randn(3, 5))
    check_cut(network, "2", torch.randn(3, 5))


def test_the_check_leaves_the_network_as_it_was() -> None:
    network = cnn().train()
    network.get_submodule("stages.0").eval()  # a frozen stage, say
    before = copy.deepcopy(network.state_dict())
    modes = [module.training for module in network.modules()]
    check_cut(network, "stages.1", torch.randn(3, 1, 8, 8))
    assert [module.training for module in network.modules()] == modes
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_resting_gives_each_module_its_mode_back_after_an_error() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    network[0].eval()
    with pytest.raises(RuntimeError, match="shapes"), resting(network):
        network(torch.randn(2, 3))
    assert [module.training for module in network.modules()] == [True, False, True]


@pytest.mark.parametrize(
    ("at", "message"),
    [
        ("stages.9", r"split: Cnn has no module 'stages\.9'; did you mean 'stages"),
        ("stage.1", r"split: Cnn has no module 'stage'; did you mean"),
        ("", "split: Cnn has no module ''"),
        ("stages.0", r"split: nothing runs before 'stages\.0', so there is no trunk"),
        ("stages", "split: nothing runs before 'stages', so there is no trunk"),
    ],
)
def test_a_cut_that_is_none_is_refused(at: str, message: str) -> None:
    for refusing in (cut, drop_trunk):
        with pytest.raises(UserError, match=message):
            refusing(cnn(), at)


def test_a_cut_inside_a_block_that_is_no_sequence_is_refused() -> None:
    network = ResNet((1, 8, 8), 10, depth=8, widths=(4, 4, 6, 8))
    inside = r"cannot cut inside 'stages\.1\.0\.residual', which is a Residual and no sequence"
    with pytest.raises(UserError, match=rf"^split: {inside}: split=stages\.1\.0\.residual cuts"):
        cut(network, "stages.1.0.residual.branch")


@pytest.mark.parametrize("at", ["stages.1", "stages.2.conv", "classifier"])
def test_without_its_trunk_a_network_is_its_head(at: str) -> None:
    network = cnn().eval()
    inputs = torch.randn(3, 1, 8, 8)
    expected, shared = network(inputs), cut(network, at).trunk(inputs)
    heads = {id(p): n for n, p in network.named_parameters()}
    kept = {heads[id(p)] for p in cut(network, at).head.parameters()}
    drop_trunk(network, at)
    assert torch.equal(cut(network, at).head(shared), expected)
    assert {name for name, _ in network.named_parameters()} == kept
    again = dict(network.named_modules())
    drop_trunk(network, at)
    assert dict(network.named_modules()) == again
    assert (network.classes, network.widths) == (10, (4, 6, 8))
