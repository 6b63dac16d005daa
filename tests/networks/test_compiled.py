"""Networks that are compiled while they learn, and say and learn what they did."""

from __future__ import annotations

import copy
import functools
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ensemble_kd.errors import UserError
from ensemble_kd.networks import compiled as module
from ensemble_kd.networks.compiled import compiled_forward, compiling
from ensemble_kd.networks.penultimate import with_penultimate
from ensemble_kd.networks.taps import listen

TAPS: tuple[tuple[str, ...], ...] = (
    (),
    ("first", "stage.preactivation"),
    ("stage.pooled", "first.input", "stage"),
)


class Small(nn.Sequential):
    """A network with activations that write in place, and BatchNorm."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, channels, 3)
        self.activation = nn.ReLU(inplace=True)
        self.stage = nn.Sequential(nn.Conv2d(channels, 6, 3), nn.BatchNorm2d(6), nn.ReLU())
        self.flat = nn.Flatten()
        self.classifier = nn.Linear(24, 3)


def seeded(channels: int = 4) -> Small:
    with torch.random.fork_rng():
        torch.manual_seed(channels)
        return Small(channels)


def batch(size: int) -> Tensor:
    return torch.randn(size, 1, 6, 6, generator=torch.Generator().manual_seed(size))


def learned(network: nn.Module, inputs: Tensor, taps: tuple[str, ...]) -> list[Tensor]:
    """What a network says, its features and all gradients of a loss on both."""
    said = listen(network, inputs, taps)
    parts = [said.logits, *said.features.values()]
    network.zero_grad()
    torch.stack([part.square().sum() for part in parts]).sum().backward()
    return [*parts, *(p.grad for p in network.parameters() if p.grad is not None)]


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Stands in for the compiler behind torch.compile; each graph that it was given."""
    given: list[object] = []

    def backend(graph: Any, inputs: Any) -> Callable[..., Any]:
        given.append(graph)
        return graph.forward  # type: ignore[no-any-return]

    torch.compiler.reset()
    monkeypatch.setattr(module, "BACKEND", backend)
    return given


def test_features_and_gradients_are_those_of_the_network(graphs: list[object]) -> None:
    networks = [seeded(4), seeded(4), seeded(5)]
    plain = copy.deepcopy(networks)
    with compiling(networks):
        for size in (8, 5, 8):
            for taps in TAPS:
                for one, other in zip(networks, plain, strict=True):
                    pairs = zip(
                        learned(one, batch(size), taps),
                        learned(other, batch(size), taps),
                        strict=True,
                    )
                    assert all(torch.equal(a, b) for a, b in pairs)
    for one, other in zip(networks, plain, strict=True):
        state, expected = one.state_dict(), other.state_dict()
        assert list(state) == list(expected)
        assert all(torch.equal(state[name], expected[name]) for name in state)


def test_sizes_are_not_compiled_each_by_itself(graphs: list[object]) -> None:
    network = seeded()
    with compiling([network]):
        for size in (8, 8):
            learned(network, batch(size), ())
        assert len(graphs) == 1
        for size in (5, 7, 6, 8, *range(2, 26)):
            learned(network, batch(size), ())
    # All sizes, and those from 16 on, for which PyTorch has another convolution.
    assert len(graphs) <= 3


def test_without_gradient_it_runs_as_it_is(graphs: list[object]) -> None:
    network = seeded().eval()
    with compiling([network]) as (own,), torch.no_grad():
        said = listen(network, batch(4), TAPS[1])
        assert torch.equal(network(batch(4)), said.logits)
        assert list(said.features) == list(TAPS[1])
        assert own.calls == 0
    assert not graphs


def test_the_features_of_the_classifier(graphs: list[object]) -> None:
    network = seeded()
    output, features = with_penultimate(network, batch(4))
    with compiling([network]):
        now, found = with_penultimate(network, batch(4))
        alone = nn.Linear(6, 3)
        with compiling([alone]):
            with_penultimate(alone, torch.randn(2, 6))
    assert torch.equal(now.logits, output.logits)
    assert torch.equal(found, features)
    assert graphs


def test_copies_are_ordinary_networks_and_nothing_is_left_behind(graphs: list[object]) -> None:
    network = seeded()
    before = set(network.__dict__)
    with compiling([network]):
        learned(network, batch(4), TAPS[2])
        assert compiled_forward(network) is not None
        for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
            assert compiled_forward(other) is None
            assert torch.equal(other(batch(4)), network(batch(4)))
        # In between nobody listens.
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    assert compiled_forward(network) is None
    assert set(network.__dict__) == before


def test_they_are_ordinary_again_after_a_failure() -> None:
    network = seeded()
    with pytest.raises(KeyError), compiling([network]):
        raise KeyError
    assert compiled_forward(network) is None


def test_hooks_that_would_not_be_called_are_refused(graphs: list[object]) -> None:
    network = seeded()
    with compiling([network]):
        network(batch(4))
        handle = network.stage.register_forward_hook(lambda *_: None)
        for taps in TAPS:
            with pytest.raises(UserError, match=r"^compile: .*nobody listens to, got Small with"):
                listen(network, batch(4), taps)
        handle.remove()
        network(batch(4))


def test_a_compiler_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("g++:\n internal error")

    monkeypatch.setattr(module, "BACKEND", broken)
    with compiling([seeded()] * 1) as (own,), pytest.raises(UserError) as refusal:
        own(batch(4))
    assert str(refusal.value).startswith("compile: torch.compile failed on Small: ")
    assert "internal error" in str(refusal.value)
    assert str(refusal.value).endswith(": compile=false")
    assert "\n" not in str(refusal.value)


def test_each_list_of_taps_has_code_of_its_own() -> None:
    given: list[Callable[..., Any]] = []

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        given.append(function)
        return functools.partial(function)

    networks = [seeded(4), seeded(4)]
    with compiling(networks, counted):
        for network in networks:
            for taps in (*TAPS, *TAPS):
                listen(network, batch(2), taps)
    assert len({id(function.__code__) for function in given}) == len(given) == 6
