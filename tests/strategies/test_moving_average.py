from __future__ import annotations

import pytest
import torch
from torch import nn

from ensemble_kd.strategies.moving_average import MovingAverage


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).double()


def stirred(part: nn.Module, seed: int) -> None:
    """Other weights and statistics, as if a step had been taken."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in part.state_dict().values():
        if tensor.is_floating_point():
            tensor.normal_(generator=generator)
        else:
            tensor.add_(1)


@pytest.mark.parametrize("decay", [0.0, 0.6, 0.9])
def test_it_is_the_mean_of_all_steps_until_the_decay_forgets_faster(decay: float) -> None:
    followed = [network(), network()]
    average = MovingAverage(followed, decay)
    name = "1.running_var"
    weight = followed[1].state_dict()["0.weight"][2, 1].item()
    variance = followed[1].state_dict()[name][2].item()
    for step in range(6):
        stirred(followed[0], step)
        stirred(followed[1], 100 + step)
        average.follow(followed, step)
        kept = min(step / (step + 1), decay)
        state = followed[1].state_dict()
        weight = kept * weight + (1 - kept) * state["0.weight"][2, 1].item()
        variance = kept * variance + (1 - kept) * state[name][2].item()
        mean = average.networks[1].state_dict()
        assert mean["0.weight"][2, 1].item() == pytest.approx(weight)
        assert mean[name][2].item() == pytest.approx(variance)
        assert mean["1.num_batches_tracked"] == state["1.num_batches_tracked"] == step + 1


def test_the_first_steps_are_a_true_mean() -> None:
    followed = network()
    average = MovingAverage([followed], 0.999)
    seen = []
    for step in range(5):
        stirred(followed, step)
        seen.append(followed.state_dict()["0.weight"].clone())
        average.follow([followed], step)
    mean = average.networks[0].state_dict()["0.weight"]
    torch.testing.assert_close(mean, torch.stack(seen).mean(0))


def test_starting_takes_over_everything() -> None:
    followed = network()
    average = MovingAverage([followed])
    stirred(followed, 0)
    average.start([followed])
    for name, tensor in average.networks[0].state_dict().items():
        assert torch.equal(tensor, followed.state_dict()[name]), name


def test_the_copies_are_apart_and_never_trained() -> None:
    followed = network()
    average = MovingAverage([followed])
    stirred(followed, 0)
    assert not torch.equal(
        average.networks[0].state_dict()["0.weight"], followed.state_dict()["0.weight"]
    )
    assert not any(parameter.requires_grad for parameter in average.parameters())
    assert all(parameter.requires_grad for parameter in followed.parameters())
    assert set(average.state_dict()) == {f"networks.0.{name}" for name in followed.state_dict()}


def test_what_networks_share_is_moved_once() -> None:
    trunk = nn.Linear(2, 3)
    followed = [nn.Sequential(trunk, nn.Linear(3, 2)), nn.Sequential(trunk, nn.Linear(3, 2))]
    average = MovingAverage(followed, 0.5)
    before = trunk.weight.detach().clone()
    with torch.no_grad():
        trunk.weight.add_(1.0)
    average.follow(followed, 9)
    first, second = (each.get_submodule("0") for each in average.networks)
    assert first is second
    torch.testing.assert_close(first.get_parameter("weight").data, before + 0.5)


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_what_is_no_decay_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match=r"decay must be in \[0, 1\), got"):
        MovingAverage([network()], decay)
