from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from ensemble_kd.build import build
from ensemble_kd.export import constructor_of
from ensemble_kd.networks import Cnn, cut
from ensemble_kd.networks.branched import Branched, run_branches
from ensemble_kd.networks.gated import Gate, Gated
from ensemble_kd.types import Output


def networks(count: int) -> list[nn.Module]:
    made: list[nn.Module] = []
    for seed in range(count):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            made.append(Cnn((1, 8, 8), 10, widths=(4, 6)))
    return made


def reference_gate(gate: Gate, features: Tensor) -> list[list[float]]:
    """softmax(ReLU(BN(W f + b))) in plain Python, with the statistics of the batch."""
    rows, weight, bias = features.tolist(), gate.linear.weight.tolist(), gate.linear.bias.tolist()
    linear = [
        [
            sum(w * f for w, f in zip(ws, row, strict=True)) + b
            for ws, b in zip(weight, bias, strict=True)
        ]
        for row in rows
    ]
    shares = []
    count = len(rows)
    means = [sum(row[k] for row in linear) / count for k in range(len(bias))]
    variances = [sum((row[k] - means[k]) ** 2 for row in linear) / count for k in range(len(bias))]
    scale, shift = gate.norm.weight.tolist(), gate.norm.bias.tolist()
    for row in linear:
        scores = [
            max(0.0, scale[k] * (z - means[k]) / math.sqrt(variances[k] + gate.norm.eps) + shift[k])
            for k, z in enumerate(row)
        ]
        powers = [math.exp(score) for score in scores]
        shares.append([power / sum(powers) for power in powers])
    return shares


def test_the_gate_is_that_of_the_paper() -> None:
    generator = torch.Generator().manual_seed(0)
    gate = Gate(5, 3).double()
    with torch.no_grad():
        gate.norm.weight.copy_(torch.rand(3, generator=generator))
        gate.norm.bias.copy_(torch.rand(3, generator=generator))
    features = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    shares = gate(features)
    assert shares.shape == (3, 7)
    expected = torch.tensor(reference_gate(gate, features), dtype=torch.float64)
    torch.testing.assert_close(shares, expected.T)
    torch.testing.assert_close(shares.sum(dim=0), torch.ones(7, dtype=torch.float64))


def test_the_mixture_is_the_weighted_sum_of_the_logits() -> None:
    gate = Gate(5, 2).double()
    shared = torch.randn(7, 5, dtype=torch.float64)
    logits = torch.randn(2, 7, 4, dtype=torch.float64)
    mixed, shares = gate.mix(Branched(tuple(Output(z) for z in logits), (), shared))
    for b in range(7):
        for c in range(4):
            expected = sum(shares[m, b].item() * logits[m, b, c].item() for m in range(2))
            assert mixed[b, c].item() == pytest.approx(expected)


def test_of_networks_apart_the_gate_sees_all_features() -> None:
    gate = Gate(5, 2).double()
    features = (torch.randn(7, 2, dtype=torch.float64), torch.randn(7, 3, dtype=torch.float64))
    outputs = tuple(Output(torch.randn(7, 4, dtype=torch.float64)) for _ in range(2))
    _, shares = gate.mix(Branched(outputs, features, None))
    torch.testing.assert_close(shares, gate(torch.cat(features, dim=1)))


def test_tokens_of_a_sample_share_its_gate() -> None:
    gate = Gate(5, 2)
    logits = torch.randn(2, 7, 3, 4)
    mixed, shares = gate.mix(Branched(tuple(Output(z) for z in logits), (), torch.randn(7, 5)))
    torch.testing.assert_close(mixed, torch.einsum("mb,mblc->blc", shares, logits))


@pytest.mark.parametrize("arguments", [(0, 2), (3, 0)])
def test_sizes_that_are_not_positive_are_refused(arguments: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="must be >= 1, got 0"):
        Gate(*arguments)


@pytest.mark.parametrize(("split", "features"), [("stages.1", 4), (None, 18)])
def test_the_gated_network_says_what_its_parts_say(split: str | None, features: int) -> None:
    parts = networks(3)
    gated = Gated(parts, Gate(features, 3), split).eval()
    inputs = torch.randn(5, 1, 8, 8)
    heard = run_branches(parts, split, [inputs])
    torch.testing.assert_close(gated(inputs), gated.gate.mix(heard)[0])
    if split is not None:
        trunks = [sum(1 for _ in cut(part, split).trunk.parameters()) for part in parts]
        assert trunks[0] > 0
        assert trunks[1:] == [0, 0]


def test_it_can_be_built_again_from_its_arguments() -> None:
    gated = Gated(networks(3), Gate(4, 3), "stages.1")
    gated(torch.randn(5, 1, 8, 8))  # moves BatchNorm's statistics
    again = Gated([Cnn((1, 8, 8), 10, widths=(4, 6)) for _ in range(3)], Gate(4, 3), "stages.1")
    again.load_state_dict(gated.state_dict())
    inputs = torch.randn(5, 1, 8, 8)
    assert torch.equal(again.eval()(inputs), gated.eval()(inputs))


@pytest.mark.parametrize(("split", "features"), [("stages.1", 4), (None, 18)])
def test_its_constructor_is_known(split: str | None, features: int) -> None:
    gated = Gated(networks(3), Gate(features, 3), split)
    node = constructor_of(gated)
    assert node is not None
    again = build(node, "network")
    again.load_state_dict(gated.state_dict())
    inputs = torch.randn(5, 1, 8, 8)
    assert torch.equal(again.eval()(inputs), gated.eval()(inputs))
