"""A stretch of a network that learns."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ensemble_kd.networks import Bert, Cnn
from ensemble_kd.networks.span import at_rest, freeze_outside


def learning(network: nn.Module) -> set[str]:
    return {name for name, parameter in network.named_parameters() if parameter.requires_grad}


def named(network: nn.Module, *starts: str) -> set[str]:
    return {name for name, _ in network.named_parameters() if name.startswith(starts)}


def cnn() -> Cnn:
    return Cnn((1, 8, 8), 3, [2, 3, 4])


@pytest.mark.parametrize(
    ("after", "up_to", "starts"),
    [
        (None, "stages.0", ("stages.0.",)),
        ("stages.0", "stages.1", ("stages.1.",)),
        ("stages.0", "pool", ("stages.1.", "stages.2.")),
        ("stages", None, ("classifier.",)),
        (None, "stages", ("stages.",)),
        (None, None, ("stages.", "classifier.")),
    ],
)
def test_what_lies_between_two_modules_learns(
    after: str | None, up_to: str | None, starts: tuple[str, ...]
) -> None:
    network = cnn()
    freeze_outside(network, after, up_to)
    assert learning(network) == named(network, *starts)


def test_the_layers_of_a_transformer() -> None:
    starts = "body.embeddings.", "body.encoder.layer.0."
    network = Bert(20, [6], 2, layers=12, width=8, heads=2, inner=8)
    freeze_outside(network, None, "body.encoder.layer.0")
    assert learning(network) == named(network, *starts)
    network = Bert(20, [6], 2, layers=12, width=8, heads=2, inner=8)
    freeze_outside(network, "body.encoder.layer.0", "body.encoder.layer.1")
    assert learning(network) == named(network, "body.encoder.layer.1.")  # and not that of layer.10


def test_parameters_outside_of_all_modules_come_first() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(2, 2)
            self.token = nn.Parameter(torch.zeros(2))

    network = Own()
    freeze_outside(network, None, "first")
    assert learning(network) == {"token", "first.weight", "first.bias"}


@pytest.mark.parametrize(
    ("after", "up_to", "paths"),
    [
        (None, "stages.0", ("stages.1", "stages.2", "pool", "classifier")),
        ("stages.0", "stages.1", ("stages.0", "stages.2", "pool", "classifier")),
        ("stages", None, ("stages",)),
        (None, None, ()),
    ],
)
def test_modules_outside_are_in_eval_mode(
    after: str | None, up_to: str | None, paths: tuple[str, ...]
) -> None:
    network = cnn().train()
    found = freeze_outside(network, after, up_to)
    assert found == paths
    with at_rest(network, found):
        for path, module in network.named_modules():
            outside = any(f"{path}.".startswith(f"{each}.") for each in paths)
            assert module.training is not outside, path
    assert all(module.training for module in network.modules())


def test_what_rested_before_still_rests() -> None:
    network = cnn()
    network.stages[0].requires_grad_(False)  # type: ignore[index]
    freeze_outside(network, None, "stages.1")
    assert learning(network) == named(network, "stages.1.")


@pytest.mark.parametrize(
    ("after", "up_to", "message"),
    [
        ("stages.1", "stages.0", "nothing learns between stages.1 and stages.0: layers must be"),
        ("stages.2", "pool", "nothing learns between stages.2 and pool"),
        ("classifier", None, "nothing learns between classifier and the end"),
        (None, "stage.0", "the network has no module 'stage.0'; did you mean 'stages.0'"),
        ("stages.9", None, "the network has no module 'stages.9'"),
    ],
)
def test_bad_input_is_one_line(after: str | None, up_to: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        freeze_outside(cnn(), after, up_to)
    assert "\n" not in str(refusal.value)
