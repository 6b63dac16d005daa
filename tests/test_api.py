"""The command line as a function, on objects."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ensemble_kd import Strategy, distill, load
from ensemble_kd.data import Digits, InMemory
from ensemble_kd.errors import UserError
from ensemble_kd.networks import Cnn
from ensemble_kd.objectives import Label, Soft, Term
from ensemble_kd.strategies import Mutual, Parallel
from ensemble_kd.weightings import Uniform

TERMS = {"label": Term(Label()), "soft": Term(Soft(4.0))}
# Teachers here are untrained, which the gate would not let pass.
QUICK = ("teacher.gate=false", "report.table=false", "report.plots=false", "report.onnx=false")


def cnn(seed: int, width: int = 4) -> Cnn:
    torch.manual_seed(seed)
    return Cnn([1, 8, 8], 10, [width, 8])


@pytest.fixture
def data() -> InMemory:
    return InMemory(Digits(), labelled=100)


@pytest.mark.parametrize(
    ("strategy", "stages"),
    [
        ("parallel", ["teacher/0", "teacher/1", "student", "control/no_teacher"]),
        ("assistant", ["teacher/0", "teacher/1", "assistant/0", "student", "control/no_teacher"]),
        (Parallel(TERMS, Uniform()), ["teacher/0", "teacher/1", "student", "control/no_teacher"]),
        (
            Mutual([cnn(7)], TERMS, Uniform()),
            ["teacher/0", "teacher/1", "student", "control/no_teacher"],
        ),
    ],
    ids=["parallel", "assistant", "own parallel", "own mutual"],
)
def test_objects_in_and_objects_out(
    data: InMemory, strategy: str | Strategy, stages: list[str]
) -> None:
    teachers, student = [cnn(1, 8), cnn(2, 8)], cnn(3)
    before = [network.state_dict() for network in (*teachers, student)]
    before = [{key: value.clone() for key, value in state.items()} for state in before]
    result = distill(teachers, student, data, strategy, epochs=1, folder="run", overrides=QUICK)
    assert [stage["name"] for stage in result.results["stages"]] == stages
    for state, network in zip(before, (*teachers, student), strict=True):
        assert all(torch.equal(state[key], value) for key, value in network.state_dict().items())
    assert result.results == json.loads(Path("run/results.json").read_text())
    assert not result.student.training
    assert not all(
        torch.equal(before[-1][key], value) for key, value in result.student.state_dict().items()
    )
    again = load("run/student")
    inputs = torch.randn(3, 1, 8, 8)
    assert torch.equal(again(inputs), result.student(inputs))


def test_the_plot_shows_every_learner(data: InMemory) -> None:
    result = distill([cnn(1)], cnn(2), data, epochs=2, overrides=QUICK)
    said = {text.get_text() for axes in result.plot().axes for text in axes.texts}
    assert any("student" in text for text in said)
    assert any("control" in text for text in said)


def test_the_same_objects_are_found_in_the_store_again(data: InMemory) -> None:
    first = distill([cnn(1)], cnn(2), data, epochs=1, overrides=QUICK)
    second = distill([cnn(1)], cnn(2), data, epochs=1, overrides=QUICK)
    other = distill([cnn(5)], cnn(2), data, epochs=1, overrides=QUICK)
    assert not any(stage["reused"] for stage in first.results["stages"][1:])
    assert all(stage["reused"] for stage in second.results["stages"])
    fresh = {stage["name"] for stage in other.results["stages"] if not stage["reused"]}
    assert fresh == {"student"}  # another teacher: another student, the same control


def test_pairs_of_tensors_are_enough(own_folder: Path) -> None:
    inputs = torch.randn(60, 5)
    loader = DataLoader(TensorDataset(inputs, inputs.argmax(-1)), batch_size=20)

    from pytorch_lightning import LightningDataModule

    module = LightningDataModule()
    for name in ("train", "val", "test"):
        setattr(module, f"{name}_dataloader", lambda: loader)
    linear = [nn.Linear(5, 5), nn.Linear(5, 5)]
    result = distill(linear, nn.Linear(5, 5), module, epochs=1, overrides=QUICK)
    assert result.results["predictors"]["student"]["test"]["n"] == 60
    with pytest.raises(UserError, match="network="):
        load(result.folder / "student")
    assert load(result.folder / "student", network=nn.Linear(5, 5)).weight.shape == (5, 5)


def test_a_network_that_onnx_cannot_express_costs_no_run(
    data: InMemory, capsys: pytest.CaptureFixture[str]
) -> None:
    class Deciding(nn.Linear):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            sign = 1.0 if inputs.sum().item() > 0 else 1.5
            return super().forward(inputs.flatten(1)) * sign

    result = distill([cnn(1)], Deciding(64, 10), data, epochs=1, overrides=QUICK[:3])
    assert "cannot be exported" in str(result.results["export"]["onnx_failure"])
    assert "warning: no student.onnx" in capsys.readouterr().err
    assert (result.folder / "student" / "weights.safetensors").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"teachers": []}, "teacher"),
        ({"teachers": [nn.Flatten()]}, "teacher/0: expected 10 classes as in the data"),
        ({"student": nn.Linear(3, 10)}, "student: the network fails on samples of shape"),
        ({"strategy": "asistant"}, "did you mean 'assistant'"),
        ({"epochs": 0}, "epochs: expected an integer >= 1, got 0"),
        ({"seed": -1}, "seed"),
        ({"overrides": ["objective.temperature=0"]}, "temperature must be"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    data: InMemory, change: dict[str, object], words: str
) -> None:
    arguments: dict[str, object] = {"teachers": [cnn(1)], "student": cnn(2), "data": data}
    with pytest.raises(UserError, match=words) as refusal:
        distill(**{**arguments, **change})  # type: ignore[arg-type]
    assert "\n" not in str(refusal.value)
    assert list(Path().iterdir()) == []


def test_what_is_handed_over_stays_as_it_was(data: InMemory) -> None:
    teacher = cnn(1).train()
    data.labelled_only = True
    distill([teacher], cnn(2), data, epochs=1, overrides=QUICK)
    assert teacher.training
    assert all(parameter.requires_grad for parameter in teacher.parameters())
    assert data.labelled_only


def test_another_temperature_is_another_student(data: InMemory) -> None:
    results = []
    for temperature in (1.0, 8.0):
        terms = {"soft": Term(Soft(temperature))}
        strategy = Parallel(terms, Uniform())
        results.append(distill([cnn(1)], cnn(2), data, strategy, epochs=1, overrides=QUICK).results)
    first, second = ({stage["name"]: stage for stage in found["stages"]} for found in results)
    assert first["student"]["digest"] != second["student"]["digest"]
    assert not second["student"]["reused"]


def test_peers_and_generations_are_like_the_given_student(data: InMemory) -> None:
    wide = cnn(3, width=7)
    for strategy in ("mutual", "born_again"):
        found = distill([cnn(1)], wide, data, strategy, epochs=1, overrides=QUICK).results
        sizes = {n: p["parameters"] for n, p in found["predictors"].items() if n[:7] != "teacher"}
        alike = {name for name, size in sizes.items() if size == sizes["student"]}
        assert alike >= {
            "student",
            "control/no_teacher",
            "peer/1" if strategy == "mutual" else "generation/0",
        }


def test_a_student_of_an_unknown_constructor_has_no_like(data: InMemory) -> None:
    unknown = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    for strategy in ("mutual", "born_again"):
        with pytest.raises(UserError, match="whose constructor is not known"):
            distill([cnn(1)], unknown, data, strategy, epochs=1)


def test_data_without_a_length_is_refused() -> None:
    from collections.abc import Iterator

    from pytorch_lightning import LightningDataModule
    from torch.utils.data import IterableDataset

    class Endless(IterableDataset[tuple[torch.Tensor, torch.Tensor]]):
        def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
            return iter([(torch.randn(5), torch.tensor(number % 3)) for number in range(20)])

    module = LightningDataModule()
    for name in ("train", "val", "test"):
        setattr(module, f"{name}_dataloader", lambda: DataLoader(Endless(), batch_size=5))
    with pytest.raises(UserError, match="expected a train_dataloader with a length"):
        distill([nn.Linear(5, 3)], nn.Linear(5, 3), module, epochs=1)


def test_labels_beyond_the_stated_classes_are_refused() -> None:
    from pytorch_lightning import LightningDataModule

    loader = DataLoader(TensorDataset(torch.randn(40, 5), torch.arange(40) % 10), batch_size=20)
    module = LightningDataModule()
    module.classes = 4  # type: ignore[attr-defined]
    for name in ("train", "val", "test"):
        setattr(module, f"{name}_dataloader", lambda: loader)
    with pytest.raises(UserError, match="expected labels below 4, got 9"):
        distill([nn.Linear(5, 4)], nn.Linear(5, 4), module, epochs=1)
