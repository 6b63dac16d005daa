from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from ensemble_kd.errors import UserError
from ensemble_kd.networks import Bert, Cnn
from ensemble_kd.networks.prepared import Prepared
from ensemble_kd.networks.taps import listen
from ensemble_kd.types import Output, Tokens


class InPlace(nn.Module):
    """Its activation writes over what the layer before it gave."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 5)
        self.activation = nn.ReLU(inplace=True)
        self.second = nn.Linear(5, 3)
        self.unused = nn.Linear(5, 3)
        self.pair = Pair()

    def forward(self, inputs: Tensor) -> Output:
        hidden, _ = self.pair(self.activation(self.first(inputs)))
        return Output(self.second(hidden), {"own": hidden})


class Pair(nn.Module):
    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        return inputs, inputs


def test_features_are_those_on_the_way_to_the_logits() -> None:
    network = Cnn((1, 8, 8), 10, widths=(4, 6))
    inputs = torch.randn(3, 1, 8, 8)
    said = listen(network, inputs, ["stages.0", "stages", "classifier.input"])
    assert list(said.features) == ["stages.0", "stages", "classifier.input"]
    pooled = network.get_submodule("pool")(said.features["stages"])
    assert torch.equal(said.features["classifier.input"], pooled)
    assert torch.equal(said.logits, network.get_submodule("classifier")(pooled))
    assert torch.equal(
        said.features["stages"], network.get_submodule("stages.1")(said.features["stages.0"])
    )
    said.features["stages"].sum().backward()
    assert network.get_submodule("stages.0.conv").get_parameter("weight").grad is not None


def test_before_and_after_an_activation_that_works_in_place() -> None:
    network = InPlace()
    said = listen(network, torch.randn(6, 4), ["first", "activation", "activation.input"])
    assert (said.features["first"] < 0).any()
    assert torch.equal(said.features["first"], said.features["activation.input"])
    assert torch.equal(said.features["first"].relu(), said.features["activation"])
    assert torch.equal(said.features["own"], said.features["activation"])


def test_without_taps_nothing_is_hooked() -> None:
    network = Cnn((1, 8, 8), 10, widths=(4,))
    inputs = torch.randn(2, 1, 8, 8)
    assert dict(listen(network, inputs).features) == {}
    assert torch.equal(listen(network, inputs).logits, network(inputs))


def hooks(network: nn.Module) -> int:
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in network.modules()
    )


def test_hooks_live_for_one_call_also_when_it_fails() -> None:
    network = Cnn((1, 8, 8), 10, widths=(4, 6))
    listen(network, torch.randn(2, 1, 8, 8), ["stages", "pool.input"])
    assert hooks(network) == 0
    with pytest.raises(RuntimeError):
        listen(network, torch.randn(3, 2, 8, 8), ["stages", "pool.input"])
    assert hooks(network) == 0
    copy.deepcopy(network)


def vmapped(network: nn.Module, inputs: Tensor) -> Tensor:
    """A feature of two copies of a network that run as one."""
    state = {name: torch.stack([t, t]) for name, t in network.named_parameters()}

    def one(parameters: dict[str, Tensor]) -> Tensor:
        def call(images: Tensor) -> Tensor:
            said: Tensor = torch.func.functional_call(network, parameters, (images,))
            return said

        said = listen(_Called(network, call), inputs, ["network.stages"])
        return said.features["network.stages"]

    features: Tensor = torch.func.vmap(one)(state)
    return features


class _Called(nn.Module):
    def __init__(self, network: nn.Module, call: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network = network
        self.call = call

    def forward(self, inputs: Tensor) -> Tensor:
        return self.call(inputs)


def test_stacked_networks_can_be_tapped_and_leak_nothing() -> None:
    network = Cnn((1, 8, 8), 10, widths=(4,)).eval()
    inputs = torch.randn(3, 1, 8, 8)
    both = vmapped(network, inputs)
    alone = listen(network, inputs, ["stages"]).features["stages"]
    torch.testing.assert_close(both[0], alone)
    torch.testing.assert_close(both[1], alone)
    assert hooks(network) == 0
    assert torch.isfinite(network(inputs)).all()


@pytest.mark.parametrize(
    ("tap", "words"),
    [
        ("firts", r"layer 'firts': InPlace has no module 'firts'; did you mean 'first'\?"),
        ("firts.input", r"layer 'firts.input': InPlace has no module 'firts'; did you mean"),
        ("unused", "layer 'unused' of InPlace: expected a tensor, got nothing, for it never ran"),
        ("pair", "layer 'pair' of InPlace: expected a tensor, got tuple"),
        ("second.preactivation", "expected a module whose output is that of an activation, got"),
        ("unused.preactivation", "expected a tensor, got nothing, for it never ran"),
        ("second.pooled", r"expected a map .* to pool, got a tensor of shape \(b, 3\)"),
        ("second.first", r"expected a sequence .* first token, got a tensor of shape \(b, 3\)"),
    ],
)
def test_a_tap_that_gives_nothing_is_one_line(tap: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        listen(InPlace(), torch.randn(2, 4), [tap])


def test_before_the_activation_that_ends_a_block_and_pooled() -> None:
    network = Cnn((1, 8, 8), 10, widths=(4, 6))
    taps = ["stages.1", "stages.1.norm", "stages.1.preactivation", "stages.1.preactivation.pooled"]
    features = listen(network, torch.randn(3, 1, 8, 8), taps).features
    before = features["stages.1.preactivation"]
    assert torch.equal(before, features["stages.1.norm"])
    assert torch.equal(before.relu(), features["stages.1"])
    assert (before < 0).any()
    pooled = features["stages.1.preactivation.pooled"]
    assert torch.equal(pooled, before.mean(dim=(2, 3)))
    pooled.sum().backward()
    assert network.get_submodule("stages.0.conv").get_parameter("weight").grad is not None
    assert hooks(network) == 0


def test_what_goes_into_an_activation_that_is_named_itself() -> None:
    network = InPlace()
    features = listen(network, torch.randn(6, 4), ["first", "activation.preactivation"]).features
    assert torch.equal(features["first"], features["activation.preactivation"])


def test_sequences_are_pooled_over_their_tokens() -> None:
    network = nn.Sequential(nn.Linear(4, 5), nn.Flatten(), nn.Linear(15, 2))
    features = listen(network, torch.randn(2, 3, 4), ["0", "0.pooled", "0.input.pooled"]).features
    assert torch.equal(features["0.pooled"], features["0"].mean(dim=1))
    assert features["0.input.pooled"].shape == (2, 4)


def test_the_first_token_of_a_sequence() -> None:
    network = nn.Sequential(nn.Linear(4, 5), nn.Flatten(), nn.Linear(15, 2))
    features = listen(network, torch.randn(2, 3, 4), ["0", "0.first", "0.input.first"]).features
    assert torch.equal(features["0.first"], features["0"][:, 0])
    assert features["0.input.first"].shape == (2, 4)


def test_padding_is_not_pooled() -> None:
    network = Bert(20, [5], 2, layers=1, width=4, heads=2, inner=4).eval()
    ids = torch.arange(15).view(3, 5)
    mask = torch.arange(5) < torch.tensor([[5], [2], [0]])
    texts = Tokens(ids, mask, torch.zeros_like(ids), torch.zeros(3, 1, dtype=torch.uint8))
    features = listen(network, texts, ["body", "body.pooled"]).features
    expected = [features["body"][row, :length].mean(dim=0) for row, length in enumerate([5, 2])]
    expected.append(torch.zeros(4))
    torch.testing.assert_close(features["body.pooled"], torch.stack(expected))

    class Retokenized(nn.Module):
        def forward(self, inputs: Tokens) -> Tensor:
            return inputs.ids.flip(1).float().unsqueeze(2)

    own = nn.Sequential(OrderedDict(states=nn.Identity(), end=nn.Flatten()))
    features = listen(Prepared(own, Retokenized()), texts, ["states.pooled"]).features
    torch.testing.assert_close(features["states.pooled"][:, 0], ids.float().mean(dim=1))


def test_a_module_may_have_the_name_of_an_option() -> None:
    network = nn.Sequential()
    network.add_module("input", nn.Linear(2, 3))
    block = nn.Sequential()
    block.add_module("input", network)
    features = listen(block, torch.randn(2, 2), ["input.input", "input.input.input"]).features
    assert features["input.input"].shape == (2, 3)
    assert features["input.input.input"].shape == (2, 2)


def test_a_compiled_network_is_tapped_as_it_was_before() -> None:
    network = Cnn((1, 8, 8), 10, widths=(4, 6)).eval()
    compiled = cast(nn.Module, torch.compile(network, backend="eager"))
    inputs = torch.randn(3, 1, 8, 8)
    torch.testing.assert_close(compiled(inputs), network(inputs))
    tapped = listen(compiled, inputs, ["stages.0"])
    alone = listen(network, inputs, ["stages.0"])
    assert torch.equal(tapped.features["stages.0"], alone.features["stages.0"])
    assert torch.equal(tapped.logits, alone.logits)
    assert hooks(network) == 0
