from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from ensemble_kd.teachers import Frozen, Mixture
from ensemble_kd.types import Output


def reference_mixture(
    logits: Sequence[npt.NDArray[np.float64]], weights: Sequence[float]
) -> npt.NDArray[np.float64]:
    """Mean of probabilities, sample by sample and class by class."""
    samples, classes = logits[0].shape
    mean = np.zeros((samples, classes))
    for weight, said in zip(weights, logits, strict=True):
        for b in range(samples):
            shifted = [np.exp(value - max(said[b])) for value in said[b]]
            for c in range(classes):
                mean[b, c] += weight / sum(weights) * shifted[c] / sum(shifted)
    return mean


class Says(nn.Module):
    """Says the same logits whatever it is asked."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, inputs: Tensor) -> Output:
        return Output(self.logits, {})


def logits(members: int, scale: float = 3.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(members)
    return [scale * torch.randn(5, 4, generator=generator) for _ in range(members)]


@pytest.mark.parametrize("weights", [None, [1.0, 1.0, 1.0], [0.2, 0.5, 0.3], [4.0, 0.0, 1.0]])
def test_its_probabilities_are_the_mean_of_the_members(weights: list[float] | None) -> None:
    said = logits(3)
    mixture = Mixture([Says(z) for z in said], weights)
    expected = reference_mixture([z.double().numpy() for z in said], weights or [1.0, 1.0, 1.0])
    found = mixture(torch.zeros(5, 2))
    np.testing.assert_allclose(found.softmax(-1).detach().numpy(), expected, rtol=2e-6)
    # They are normalised already, so that they can be read as log-probabilities too.
    np.testing.assert_allclose(found.exp().detach().numpy(), expected, rtol=2e-6)


def test_one_member_keeps_its_probabilities() -> None:
    (said,) = logits(1)
    found = Mixture([Says(said)])(torch.zeros(5, 2))
    torch.testing.assert_close(found.softmax(-1), said.softmax(-1))


def test_identical_members_are_one() -> None:
    (said,) = logits(1)
    found = Mixture([Says(said), Says(said), Says(said)])(torch.zeros(5, 2))
    torch.testing.assert_close(found, said.log_softmax(-1))


def test_the_order_does_not_matter() -> None:
    one, two, three = logits(3)
    forward = Mixture([Says(one), Says(two), Says(three)], [1, 2, 3])(torch.zeros(5, 2))
    backward = Mixture([Says(three), Says(two), Says(one)], [3, 2, 1])(torch.zeros(5, 2))
    torch.testing.assert_close(forward, backward)


def test_saturated_logits_stay_finite_and_keep_their_gradient() -> None:
    said = [torch.tensor([[1e4, -1e4, 0.0]]), torch.tensor([[-1e4, 1e4, 0.0]])]
    members = [Says(z) for z in said]
    found = Mixture(members)(torch.zeros(1, 2))
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found[0, :2].exp(), torch.tensor([0.5, 0.5]))
    # Both members leave the third class exp(-1e4): the mixture must still know how little it is.
    assert found[0, 2].item() == pytest.approx(-1e4, rel=1e-6)
    found.sum().backward()
    for member in members:
        assert member.logits.grad is not None
        assert torch.isfinite(member.logits.grad).all()


def test_a_member_without_weight_does_not_count_even_if_it_is_broken() -> None:
    (said,) = logits(1)
    broken = Says(torch.full((5, 4), float("nan")))
    found = Mixture([broken, Says(said)], [0.0, 1.0])(torch.zeros(5, 2))
    torch.testing.assert_close(found, said.log_softmax(-1))


def test_half_precision_is_merged_in_single() -> None:
    said = [z.bfloat16() for z in logits(2)]
    found = Mixture([nn.Identity(), nn.Identity()]).merge(said)
    assert found.dtype == torch.float32
    expected = reference_mixture([z.double().numpy() for z in said], [1.0, 1.0])
    np.testing.assert_allclose(found.exp().numpy(), expected, rtol=2e-6)
    assert Mixture([nn.Identity()]).merge([said[0].double()]).dtype == torch.float64


def test_tokens_are_merged_too() -> None:
    said = [torch.randn(2, 3, 4), torch.randn(2, 3, 4)]
    found = Mixture([nn.Identity(), nn.Identity()]).merge(said)
    flat = Mixture([nn.Identity(), nn.Identity()]).merge([z.flatten(0, 1) for z in said])
    torch.testing.assert_close(found.flatten(0, 1), flat)


def test_it_owns_each_parameter_once() -> None:
    one, two = nn.Linear(4, 3), nn.Linear(4, 3)
    mixture = Mixture([one, two])
    assert sum(p.numel() for p in mixture.parameters()) == 2 * (4 * 3 + 3)
    assert len(mixture.state_dict()) == 4
    again = copy.deepcopy(mixture)
    inputs = torch.randn(6, 4)
    assert torch.equal(again(inputs), mixture(inputs))


def test_frozen_members_are_welcome() -> None:
    network = nn.Linear(4, 3)
    inputs = torch.randn(6, 4)
    expected = network(inputs).log_softmax(-1)
    torch.testing.assert_close(Mixture([Frozen(network)])(inputs), expected.detach())


@pytest.mark.parametrize(
    ("count", "weights", "message"),
    [
        (0, None, "members must be one or more networks, got none"),
        (2, [1.0], r"weights must be 2 numbers, got \[1.0\]"),
        (2, [0.0, 0.0], "weights must be >= 0, of a positive finite sum"),
        (2, [2.0, -1.0], "weights must be >= 0, of a positive finite sum"),
        (2, [1.0, float("nan")], "weights must be >= 0, of a positive finite sum"),
        (2, [1.0, float("inf")], "weights must be >= 0, of a positive finite sum"),
    ],
)
def test_bad_arguments(count: int, weights: list[float] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Mixture([nn.Linear(2, 3) for _ in range(count)], weights)


def test_members_must_agree_on_the_classes() -> None:
    with pytest.raises(ValueError, match=r"agree on the number of classes, got \[3, 4\]"):
        Mixture([nn.Linear(2, 3), nn.Linear(2, 4)])(torch.zeros(1, 2))
    with pytest.raises(ValueError, match="logits must be those of 2 members, got 1"):
        Mixture([nn.Linear(2, 3), nn.Linear(2, 3)]).merge([torch.zeros(1, 3)])
