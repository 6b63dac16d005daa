"""Teachers from elsewhere, in the classes of the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from ensemble_kd.config import compose, plain
from ensemble_kd.data import Arrays, InMemory
from ensemble_kd.errors import UserError
from ensemble_kd.plan import make_plan
from ensemble_kd.run import carry_out
from ensemble_kd.taught import classes_apart, open_teacher, told
from ensemble_kd.teachers import Translated
from ensemble_kd.teachers.sources import Loaded, Source, Told

NAMES = ("ant", "bee", "cat")


class Saying(torch.nn.Module):
    """Its logits are its inputs."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs


class Here(Source):
    """A source that says names of its own."""

    def __init__(self, names: tuple[str, ...] | None) -> None:
        self.names = names

    def load(self, told: Told) -> Loaded:
        return Loaded(Saying(), "ab", names=self.names)


@pytest.fixture
def data(tmp_path: Path) -> InMemory:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "a.npz", x=rng.normal(size=(60, 3)).astype("f4"), y=np.arange(60) % 3)
    return InMemory(Arrays(tmp_path / "a.npz", names=NAMES, mean=0.5, std=2.0), batch_size=8)


def opened(
    monkeypatch: pytest.MonkeyPatch, data: InMemory, names: Any, classes: Any = None
) -> tuple[torch.nn.Module, str]:
    monkeypatch.setattr("ensemble_kd.taught.build", lambda *_: Here(names))
    node, entries = classes_apart({"_target_": "any", "classes": classes}, data, "teacher/0")
    taught = open_teacher(node, "teacher/0", data, entries, ())
    return taught.network, taught.digest


def test_a_source_is_told_what_the_data_is(data: InMemory) -> None:
    said = told(data, ("mine",))
    assert said.inputs == (3,)
    assert said.names == NAMES
    assert (said.mean, said.std) == (0.5, 2.0)
    assert said.tokenizer is None
    assert said.allow == ("mine",)
    assert said.identities is not None
    ids, numbers = said.identities()
    assert len(ids) == len(numbers) == 60


@pytest.mark.parametrize("names", [None, NAMES])
def test_the_same_names_or_none_leave_a_teacher_as_it_is(
    monkeypatch: pytest.MonkeyPatch, data: InMemory, names: Any
) -> None:
    network, digest = opened(monkeypatch, data, names)
    assert isinstance(network, Saying)
    assert digest == "ab"


def test_another_order_is_put_right(monkeypatch: pytest.MonkeyPatch, data: InMemory) -> None:
    network, digest = opened(monkeypatch, data, ("cat", "ant", "bee"))
    assert isinstance(network, Translated)
    assert network(torch.tensor([[1.0, 2.0, 3.0]])).logits.tolist() == [[2.0, 3.0, 1.0]]
    assert digest != "ab"


def test_what_the_user_says_counts_more(monkeypatch: pytest.MonkeyPatch, data: InMemory) -> None:
    network, _ = opened(monkeypatch, data, ("x", "y", "z"), ["bee", "cat", "ant"])
    assert network(torch.tensor([[1.0, 2.0, 3.0]])).logits.tolist() == [[3.0, 1.0, 2.0]]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("ant", "bee"), "teacher/0: expected 3 classes as in the data, got 2 (ant, bee)"),
        (
            ("ant", "bee", "dog"),
            "teacher/0: the order of its classes is unknown: expected ant, bee, cat as in the "
            "data, got ant, bee, dog",
        ),
    ],
)
def test_an_order_that_nobody_knows_is_refused(
    monkeypatch: pytest.MonkeyPatch, data: InMemory, names: Any, words: str
) -> None:
    with pytest.raises(UserError) as refusal:
        opened(monkeypatch, data, names)
    assert str(refusal.value).startswith(words)
    assert "say with classes:" in str(refusal.value)


def test_an_artefact_knows_the_names_of_its_classes(tmp_path: Path, data: InMemory) -> None:
    run = ("data=arrays", f"data.source.path={tmp_path / 'a.npz'}", "student=mlp_small")
    quick = ("epochs=1", "teacher=none", "strategy=teacher_free", "control=false", "logger=none")
    own = (*run, *quick, "report.onnx=false", "report.plots=false", "report.table=false")
    config = compose([*own, "data.source.names=[ant,bee,cat]"])
    folder = tmp_path / "run"
    carry_out(make_plan(config), config, folder)

    member = f"teacher.members=[{{artefact: {folder / 'student'}}}]"
    other = make_plan(compose([*run, member, "data.source.names=[bee,cat,ant]"]))

    network = other.given["teacher/0"].network
    assert isinstance(network, Translated)
    assert network.space.entries == ((2,), (0,), (1,))


def test_a_source_by_its_name_is_the_node_of_that_name() -> None:
    config = compose(["teacher.members=[{onnx: my.onnx, probabilities: true}, cnn_tiny]"])
    OmegaConf.set_struct(config, False)
    config.data.inputs, config.data.classes = [1, 8, 8], 10  # the network's node asks for them
    first, second = plain(config.teacher, "teacher")["networks"]
    assert first["_target_"] == "ensemble_kd.teachers.sources.Onnx"
    assert first["path"] == "my.onnx"
    assert first["probabilities"] is True
    assert second["_target_"] == "ensemble_kd.networks.Cnn"


@pytest.mark.parametrize("member", ["{onx: my.onnx}", "{onnx: a, sklearn: b}", "{}"])
def test_a_member_that_is_nothing_is_refused_with_what_there_is(member: str) -> None:
    with pytest.raises(UserError, match=r"teacher\.networks: .*one of the sources artefact, "):
        make_plan(compose([f"teacher.members=[{member}]"]))
