from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ensemble_kd.networks.multi_head import MultiHead, Tasked
from ensemble_kd.types import Output

TASKS = (3, 2)
INPUTS = Tasked(
    torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64),
    torch.tensor([0, 1, 1, 0, 1, 0]),
)


def linear() -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Linear(4, 5).double()


def heads(network: nn.Linear) -> list[nn.Linear]:
    """The classifier taken apart: one for each task."""
    parts, first = [], 0
    for classes in TASKS:
        part = nn.Linear(4, classes).double()
        part.weight.data = network.weight.data[first : first + classes].clone()
        part.bias.data = network.bias.data[first : first + classes].clone()
        parts.append(part)
        first += classes
    return parts


def test_each_sample_is_answered_by_the_head_of_its_task() -> None:
    network = linear()
    p = MultiHead(network, TASKS)(INPUTS).softmax(-1)
    for b, task in enumerate(INPUTS.task.tolist()):
        own = heads(network)[task](INPUTS.inputs[b]).softmax(-1).tolist()
        assert p[b].tolist() == pytest.approx([*own, 0, 0] if task == 0 else [0, 0, 0, *own])


def test_the_heads_learn_apart() -> None:
    """Gradients are those of the tasks' own classifiers; an absent task's head has none."""
    network = linear()
    target = torch.tensor([2, 4, 3, 0, 3, 1])
    model = MultiHead(network, TASKS)
    nn.functional.cross_entropy(model(INPUTS), target, reduction="sum").backward()
    parts = heads(network)
    for task, (part, first) in enumerate(zip(parts, (0, 3), strict=True)):
        rows = INPUTS.task == task
        said = part(INPUTS.inputs[rows])
        nn.functional.cross_entropy(said, target[rows] - first, reduction="sum").backward()
        assert network.weight.grad is not None
        torch.testing.assert_close(
            network.weight.grad[first : first + len(said[0])], part.weight.grad
        )
    network.zero_grad()
    lone = Tasked(INPUTS.inputs[:1], INPUTS.task[:1])
    nn.functional.cross_entropy(model(lone), target[:1]).backward()
    assert network.weight.grad is not None
    assert network.weight.grad[:3].abs().sum() > 0
    assert not network.weight.grad[3:].any()


@pytest.mark.parametrize("only", [0, 1])
def test_a_specialist_finds_the_classes_of_other_tasks_equally_likely(only: int) -> None:
    network = linear()
    p = MultiHead(network, TASKS, only)(INPUTS).softmax(-1)
    whole = MultiHead(network, TASKS)(INPUTS).softmax(-1)
    own = INPUTS.task == only
    torch.testing.assert_close(p[own], whole[own])
    equal = [0, 0, 0, 0.5, 0.5] if only == 0 else [1 / 3, 1 / 3, 1 / 3, 0, 0]
    for row in p[~own].tolist():
        assert row == pytest.approx(equal)


@pytest.mark.parametrize("temperature", [1.0, 20.0, 50.0])
def test_other_tasks_have_no_probability_in_float32(temperature: float) -> None:
    logits = MultiHead(linear(), TASKS)(INPUTS).float()
    assert not (logits[INPUTS.task == 0] / temperature).softmax(-1)[:, 3:].any()


def test_networks_may_answer_with_an_output() -> None:
    class Says(nn.Module):
        def forward(self, inputs: Tensor) -> Output:
            return Output(inputs[:, :1].expand(-1, 5), {"pool": inputs})

    torch.testing.assert_close(
        MultiHead(Says(), TASKS)(INPUTS)[0, :3], INPUTS.inputs[0, :1].expand(3)
    )


def test_the_state_is_that_of_the_network() -> None:
    model = MultiHead(linear(), TASKS)
    assert set(model.state_dict()) == {"network.weight", "network.bias"}
    assert torch.equal(copy.deepcopy(model)(INPUTS), model(INPUTS))


def test_inputs_without_a_task_are_refused() -> None:
    with pytest.raises(TypeError, match="needs inputs and the task of each sample, got Tensor"):
        MultiHead(linear(), TASKS)(INPUTS.inputs)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"tasks": []}, r"tasks must be numbers of classes >= 2, got \[\]"),
        ({"tasks": [3, 1]}, r"tasks must be numbers of classes >= 2, got \[3, 1\]"),
        ({"tasks": [3, 2], "only": 2}, r"only must be in 0\.\.1, got 2"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        MultiHead(linear(), **arguments)
