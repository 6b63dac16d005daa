from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from ensemble_kd.errors import UserError
from ensemble_kd.networks import Cnn, cut
from ensemble_kd.networks.branched import joined, run_branches, trunk_size
from ensemble_kd.networks.penultimate import classifier, pooled, with_penultimate


class Small(nn.Module):
    """Runs in the order of its modules."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 6)
        self.tanh = nn.Tanh()
        self.second = nn.Linear(6, 4)
        self.last = nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        said: Tensor = self.last(self.second(self.tanh(self.first(inputs))))
        return said


def network(seed: int) -> Small:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Small().double()


INPUTS = torch.randn(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def trunk_of(net: Small, inputs: Tensor = INPUTS) -> Tensor:
    shared: Tensor = net.tanh(net.first(inputs))
    return shared


def test_networks_apart_say_what_each_says() -> None:
    networks = [network(0), network(1)]
    heard = run_branches(networks, None, [INPUTS])
    assert heard.shared is None
    for net, output, features in zip(networks, heard.outputs, heard.features, strict=True):
        assert torch.equal(output.logits, net(INPUTS))
        assert torch.equal(features, net.second(trunk_of(net)))


def test_with_a_split_all_heads_stand_on_the_first_trunk() -> None:
    networks = [network(0), network(1), network(2)]
    heard = run_branches(networks, "second", [INPUTS])
    shared = trunk_of(networks[0])
    assert heard.shared is not None
    assert torch.equal(heard.shared, shared)
    for net, output, features in zip(networks, heard.outputs, heard.features, strict=True):
        assert torch.equal(features, net.second(shared))
        assert torch.equal(output.logits, net.last(net.second(shared)))


@pytest.mark.parametrize("split", [None, "second"])
def test_each_branch_can_see_its_own_view(split: str | None) -> None:
    networks = [network(0), network(1)]
    views = [INPUTS, INPUTS.flip(0)]
    heard = run_branches(networks, split, views)
    for net, view, output in zip(networks, views, heard.outputs, strict=True):
        start = trunk_of(networks[0] if split else net, view)
        torch.testing.assert_close(output.logits, net.last(net.second(start)))


@pytest.mark.parametrize("views", [1, 3])
def test_the_factor_is_on_the_gradient_of_the_trunk_alone(views: int) -> None:
    gradients = []
    for factor in (1.0, 0.25):
        networks = [network(0), network(1), network(2)]
        heard = run_branches(networks, "second", [INPUTS] * views, factor)
        torch.stack([output.logits.pow(2).sum() for output in heard.outputs]).sum().backward()
        gradients.append(
            {(n, k): p.grad for n, net in enumerate(networks) for k, p in net.named_parameters()}
        )
    whole, scaled = gradients
    for (number, name), gradient in whole.items():
        in_trunk = name.startswith("first")
        if in_trunk and number > 0:
            assert gradient is None
            continue
        assert gradient is not None
        assert gradient.abs().sum() > 0
        torch.testing.assert_close(scaled[number, name], gradient * (0.25 if in_trunk else 1.0))


def test_the_trunk_sees_the_sum_over_the_branches() -> None:
    """Without a factor: the gradient of the sum is the sum of what each branch alone would send."""

    def gradient(branches: list[int]) -> Tensor:
        networks = [network(0), network(1), network(2)]
        heard = run_branches(networks, "second", [INPUTS])
        torch.stack([heard.outputs[b].logits.pow(2).sum() for b in branches]).sum().backward()
        found = networks[0].first.weight.grad
        assert found is not None
        return found

    torch.testing.assert_close(gradient([0, 1, 2]), gradient([0]) + gradient([1]) + gradient([2]))


def test_no_hook_stays_behind() -> None:
    net = network(0)
    run_branches([net, network(1)], "second", [INPUTS], 0.5)
    assert not any(module._forward_pre_hooks for module in net.modules())


def test_a_frozen_trunk_can_be_scaled() -> None:
    networks = [network(0).requires_grad_(False), network(1)]
    with torch.no_grad():
        heard = run_branches(networks, "second", [INPUTS], 0.5)
    assert torch.equal(heard.outputs[0].logits, networks[0](INPUTS))


def test_joined_shares_modules_and_mode() -> None:
    first, other = network(0).eval(), network(1).eval()
    whole = joined(first, other, "second")
    assert not any(module.training for module in whole.modules())
    assert torch.equal(whole(INPUTS), other.last(other.second(trunk_of(first))))
    owned = {
        id(p)
        for p in (*first.first.parameters(), *other.second.parameters(), *other.last.parameters())
    }
    assert {id(p) for p in whole.parameters()} == owned


def test_the_size_of_a_trunk() -> None:
    net = Cnn((1, 8, 8), 10, widths=(4, 6))
    before = copy.deepcopy(net.state_dict())
    assert trunk_size(net, "stages.1", (1, 8, 8)) == 4
    assert trunk_size(net, "classifier", (1, 8, 8)) == 6
    assert trunk_size(network(0), "second", (5,)) == 6
    assert net.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4, 5), (2, 3, 4, 5, 6)])
def test_maps_are_averaged_over_their_places(shape: tuple[int, ...]) -> None:
    maps = torch.randn(shape, dtype=torch.float64)
    found = pooled(maps)
    assert found.shape == shape[:2]
    for b in range(shape[0]):
        for d in range(shape[1]):
            assert found[b, d].item() == pytest.approx(maps[b, d].mean().item())


def test_tokens_are_averaged() -> None:
    tokens = torch.randn(2, 5, 3, dtype=torch.float64)
    torch.testing.assert_close(pooled(tokens), tokens.mean(dim=1))
    _, features = with_penultimate(nn.Linear(3, 4).double(), tokens)
    torch.testing.assert_close(features, tokens.mean(dim=1))


def test_the_features_of_a_network_are_those_before_its_last_linear_layer() -> None:
    net = Cnn((1, 8, 8), 10, widths=(4, 6), grid=2).eval()
    inputs = torch.randn(3, 1, 8, 8)
    output, features = with_penultimate(net, inputs)
    assert torch.equal(features, cut(net, "classifier").trunk(inputs))
    assert torch.equal(output.logits, net(inputs))
    assert classifier(net) is net.classifier


def test_features_carry_gradient() -> None:
    net = network(0)
    _, features = with_penultimate(net, INPUTS)
    features.sum().backward()
    assert net.first.weight.grad is not None
    assert net.last.weight.grad is None


def test_a_network_without_a_linear_layer_is_refused() -> None:
    with pytest.raises(UserError, match=r"ends with an nn\.Linear, got Conv2d, which has none"):
        with_penultimate(nn.Conv2d(1, 3, 8), torch.randn(2, 1, 8, 8))


def test_a_linear_layer_that_does_not_run_is_refused() -> None:
    class Spare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 3, 8)
            self.spare = nn.Linear(3, 3)

        def forward(self, inputs: Tensor) -> Tensor:
            said: Tensor = self.conv(inputs).flatten(1)
            return said

    with pytest.raises(UserError, match=r"last nn\.Linear of Spare does not run"):
        with_penultimate(Spare(), torch.randn(2, 1, 8, 8))
