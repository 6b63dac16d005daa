from __future__ import annotations

import copy
import io
import pickle
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ensemble_kd.networks.taps import listen
from ensemble_kd.teachers import Ensemble, Frozen, frozen
from ensemble_kd.types import Output


class Talkative(nn.Module):
    """A network that returns features beside its logits."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(6, 5)
        self.norm = nn.BatchNorm1d(5)
        self.head = nn.Linear(5, 3)

    def forward(self, inputs: Tensor) -> Output:
        features = self.norm(self.body(inputs))
        return Output(self.head(features), {"norm": features})


@pytest.fixture
def network() -> nn.Sequential:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.ReLU(), nn.Linear(5, 3)
    )
    network(torch.randn(32, 6))  # so that the running statistics are not those of a fresh network
    return network


@pytest.fixture
def inputs() -> Tensor:
    return torch.randn(8, 6, generator=torch.Generator().manual_seed(1))


def clear(part: nn.Module) -> None:
    if isinstance(part, nn.Linear):
        nn.init.zeros_(part.weight)


def snapshot(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_it_says_what_the_network_says(network: nn.Sequential, inputs: Tensor) -> None:
    expected = copy.deepcopy(network).eval()(inputs)
    said = Frozen(network)(inputs)
    assert isinstance(said, Output)
    assert torch.equal(said.logits, expected)
    assert said.features == {}


def test_features_and_objects_with_logits_come_through(inputs: Tensor) -> None:
    talkative = Talkative()
    expected = copy.deepcopy(talkative).eval()(inputs)
    said = Frozen(talkative)(inputs)
    assert torch.equal(said.logits, expected.logits)
    assert torch.equal(said.features["norm"], expected.features["norm"])

    class Wrapped(nn.Module):
        def forward(self, inputs: Tensor) -> Any:
            return SimpleNamespace(logits=2 * inputs)

    assert torch.equal(Frozen(Wrapped())(inputs).logits, 2 * inputs)


def test_a_network_without_logits_is_refused(inputs: Tensor) -> None:
    class Mute(nn.Module):
        def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
            return inputs, inputs

    with pytest.raises(TypeError, match="must return logits"):
        Frozen(Mute())(inputs)


def test_it_stays_in_eval_mode(network: nn.Sequential, inputs: Tensor) -> None:
    stage = nn.ModuleDict({"teacher": Frozen(network), "student": nn.Linear(6, 3)})
    before = stage["teacher"](inputs).logits
    stage.train()
    assert not any(part.training for part in network.modules())
    assert torch.equal(stage["teacher"](inputs).logits, before)


def test_nobody_who_trains_can_see_it(network: nn.Sequential) -> None:
    stage = nn.Module()
    stage.teacher = Frozen(network)
    assert list(stage.parameters()) == []
    assert list(stage.buffers()) == []
    assert stage.state_dict() == {}
    assert list(stage.teacher.children()) == []
    stage.requires_grad_(True)
    stage.apply(clear)
    assert not any(parameter.requires_grad for parameter in network.parameters())
    linear = network[0]
    assert isinstance(linear, nn.Linear)
    assert linear.weight.abs().sum() > 0


def test_its_output_carries_no_gradient_and_can_be_learned_from(inputs: Tensor) -> None:
    teacher = Frozen(Talkative())
    student = nn.Linear(6, 3)
    said = teacher(inputs)
    for tensor in (said.logits, *said.features.values()):
        assert not tensor.requires_grad
        assert not tensor.is_inference()
    # A product saves the teacher's tensor for the backward pass, which inference tensors refuse.
    loss = (student(inputs) * said.logits).sum() + (
        said.features["norm"] @ student.weight.T[:5]
    ).sum()
    loss.backward()
    assert student.weight.grad is not None
    assert student.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in teacher.network.parameters())


def test_its_output_may_be_changed_in_place(network: nn.Sequential, inputs: Tensor) -> None:
    said = Frozen(network)(inputs).logits
    said.add_(1).requires_grad_()
    said.sum().backward()
    assert said.grad is not None


def test_no_gradient_reaches_the_network_from_inputs_that_want_one(
    network: nn.Sequential, inputs: Tensor
) -> None:
    assert not Frozen(network)(inputs.clone().requires_grad_()).logits.requires_grad


def test_it_is_bit_equal_after_a_student_was_trained(
    network: nn.Sequential, inputs: Tensor
) -> None:
    class Stage(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.student = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
            self.teacher = Frozen(network)

    stage = Stage().train()
    before, student_before = snapshot(network), snapshot(stage.student)
    optimizer = torch.optim.SGD(stage.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    generator = torch.Generator().manual_seed(2)
    for _ in range(50):
        batch = torch.randn(16, 6, generator=generator)
        target = stage.teacher(batch).logits.softmax(-1)
        loss = F.cross_entropy(stage.student(batch), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert_equal(snapshot(network), before)
    assert not torch.equal(stage.student.state_dict()["0.weight"], student_before["0.weight"])


def test_it_follows_the_type(network: nn.Sequential, inputs: Tensor) -> None:
    teacher = Frozen(network)
    stage = nn.ModuleList([teacher])
    assert stage.to(torch.float64) is stage
    said = teacher(inputs.double()).logits
    assert said.dtype == torch.float64
    assert all(p.dtype == torch.float64 for p in network.parameters())
    stage.bfloat16()
    assert teacher(inputs.bfloat16()).logits.dtype == torch.bfloat16


def test_it_follows_the_device(network: nn.Sequential) -> None:
    teacher = Frozen(network)
    nn.ModuleList([teacher]).to("meta")
    assert all(p.is_meta for p in (*network.parameters(), *network.buffers()))
    assert teacher(torch.randn(2, 6, device="meta")).logits.is_meta
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "torch.save"])
def test_a_copy_is_frozen_too_and_shares_nothing(
    network: nn.Sequential, inputs: Tensor, way: str
) -> None:
    teacher = Frozen(network)
    if way == "deepcopy":
        again = copy.deepcopy(teacher)
    elif way == "pickle":
        again = pickle.loads(pickle.dumps(teacher))
    else:
        file = io.BytesIO()
        torch.save(teacher, file)
        file.seek(0)
        again = torch.load(file, weights_only=False)
    assert torch.equal(again(inputs).logits, teacher(inputs).logits)
    assert again.network is not network
    assert not any(parameter.requires_grad for parameter in again.network.parameters())
    again.network.apply(clear)
    assert not torch.equal(again(inputs).logits, teacher(inputs).logits)


def test_it_works_inside_inference_mode(network: nn.Sequential, inputs: Tensor) -> None:
    teacher = Frozen(network)
    expected = teacher(inputs).logits
    with torch.inference_mode():
        assert torch.equal(teacher(inputs).logits, expected)


def test_no_hook_stays_behind(network: nn.Sequential, inputs: Tensor) -> None:
    teacher = Frozen(network)
    teacher(inputs)
    assert all(
        not part._forward_hooks and not part._forward_pre_hooks for part in network.modules()
    )


def test_it_stays_where_it_was_told_to(network: nn.Sequential) -> None:
    teacher = Frozen(network)
    assert teacher.home is None
    Ensemble([teacher]).stay(torch.device("meta"))
    assert teacher.home == torch.device("meta")
    for move in (lambda: teacher.to("cpu"), teacher.cpu, lambda: nn.ModuleList([teacher]).cpu()):
        move()
        assert all(p.is_meta for p in (*network.parameters(), *network.buffers()))
    teacher.double()  # what does not move it is done to it
    assert all(p.is_meta and p.dtype == torch.float64 for p in network.parameters())
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("wrapped", [lambda x: x, lambda x: {"a": 1, "b": [None, (x,)]}])
def test_inputs_go_to_it_and_answers_come_back(
    network: nn.Sequential, inputs: Tensor, monkeypatch: pytest.MonkeyPatch, wrapped: Any
) -> None:
    """No second device is there: what would be moved is noted, and stays."""
    teacher = Frozen(network, ["3"])
    expected = teacher(inputs)
    moves: list[tuple[Any, str]] = []

    def moved(what: Any, device: torch.device) -> Any:
        moves.append((what, str(device)))
        return what

    monkeypatch.setattr(frozen, "move_data_to_device", moved)
    monkeypatch.setattr(
        frozen, "listen", lambda net, given, taps: listen(net, _tensor(given), taps)
    )
    monkeypatch.setattr(network, "to", lambda device: network)
    teacher.stay(torch.device("cuda", 1))
    given = wrapped(inputs)
    said = teacher(given)
    assert torch.equal(said.logits, expected.logits)
    assert [device for _, device in moves] == ["cuda:1", "cpu"]
    assert moves[0][0] is given
    assert isinstance(moves[1][0], Output)
    assert moves[1][0].features.keys() == {"3"}
    teacher.stay(torch.device("cpu"))
    teacher(given)
    assert len(moves) == 2  # it is there already


def _tensor(given: Any) -> Tensor:
    return given if isinstance(given, Tensor) else given["b"][1][0]


@pytest.mark.parametrize("mixed", [False, True])
def test_it_computes_in_the_precision_of_the_students_device(
    monkeypatch: pytest.MonkeyPatch, mixed: bool
) -> None:
    """That of the student is a card, which is not there: what torch says of it is made up."""
    within = torch.is_autocast_enabled
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: mixed and kind == "cuda")
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda kind: torch.bfloat16)
    with frozen._same_precision(torch.device("cuda", 0), torch.device("cpu")):
        assert within("cpu") == mixed
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == (
            torch.bfloat16 if mixed else torch.float32
        )
