"""Teachers from elsewhere, in the classes of the data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from ensemble_kd import distill
from ensemble_kd.artefact import read_artefact, write_artefact
from ensemble_kd.config import compose, plain
from ensemble_kd.data import Arrays, Digits, InMemory
from ensemble_kd.engine import Engine
from ensemble_kd.errors import UserError
from ensemble_kd.networks import Cnn
from ensemble_kd.networks.prepared import Prepared
from ensemble_kd.plan import make_plan
from ensemble_kd.run import carry_out
from ensemble_kd.store import Store
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
    quick = ("epochs=1", "teacher=none", "strategy=teacher_free", "controls=[]", "logger=none")
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


def test_outputs_that_cover_several_classes_say_so(
    monkeypatch: pytest.MonkeyPatch, data: InMemory
) -> None:
    network, _ = opened(monkeypatch, data, (("cat", "ant"), None, ("bee",)))
    assert isinstance(network, Translated)
    assert network.space.entries == ((2, 0), (), (1,))
    with pytest.raises(UserError, match=r"^teacher/0: classes must be those of the data, got"):
        opened(monkeypatch, data, (("cat", "dog"), ("bee",)))


def test_a_name_that_stands_twice_is_no_order(
    monkeypatch: pytest.MonkeyPatch, data: InMemory
) -> None:
    with pytest.raises(UserError, match="teacher/0: the order of its classes is unknown"):
        opened(monkeypatch, data, ("ant", "ant", "bee"))


def test_whatever_a_library_raises_is_one_line(
    monkeypatch: pytest.MonkeyPatch, data: InMemory
) -> None:
    def broken(self: Here, told: Told) -> Loaded:
        raise KeyError("weights\nand more")

    monkeypatch.setattr(Here, "load", broken)
    with pytest.raises(UserError) as refusal:
        opened(monkeypatch, data, None)
    said = str(refusal.value)
    assert said.startswith("teacher/0: it cannot be opened: KeyError: ")
    assert "\n" not in said


def test_images_need_to_be_known_to_be_prepared(
    monkeypatch: pytest.MonkeyPatch, data: InMemory
) -> None:
    def prepared(self: Here, told: Told) -> Loaded:
        return Loaded(Prepared(Saying(), torch.nn.Identity()), "ab")

    monkeypatch.setattr(Here, "load", prepared)
    opened(monkeypatch, data, None)
    monkeypatch.setattr(InMemory, "mean", None)
    with pytest.raises(UserError, match="the data does not say how it standardises them"):
        opened(monkeypatch, data, None)


def test_a_teacher_in_another_order_keeps_it_when_it_teaches_again(tmp_path: Path) -> None:
    order = ["0", "2", "1", *map(str, range(3, 10))]
    first = make_plan(
        compose([f"teacher.members=[{{network: cnn_tiny, classes: {order}}}]", "teacher.epochs=1"])
    )
    monkey = replace(first, stages=first.stages[:1])
    made = Engine(monkey, Store(tmp_path), tmp_path, logger=False).products()["teacher/0"]

    again = make_plan(compose([f"teacher.members=[{{artefact: {made.artefact.folder}}}]"]))

    network = again.given["teacher/0"].network
    assert isinstance(network, Translated)
    assert network.space.entries == tuple((int(name),) for name in order)


class Deciding(torch.nn.Module):
    """Of the user's own."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs


def test_the_code_of_a_users_class_belongs_to_what_an_artefact_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_artefact(tmp_path, Deciding(), {"_target_": "my_nets.Deciding"}, {"digest": "ab"})
    identities = []
    for code in ("one", "two"):
        monkeypatch.setattr("ensemble_kd.artefact.code_digest", lambda name, said=code: said)
        identities.append(read_artefact(tmp_path).identity)
    assert len(set(identities)) == 2


def test_what_cannot_be_sent_to_other_processes_is_refused() -> None:
    data = InMemory(Digits(), labelled=100)
    asked = ("trainer=ddp", "trainer.accelerator=cpu", "teacher.gate=false", "report.table=false")
    with pytest.raises(UserError, match=r"^teacher/0: it cannot be sent to the other processes of"):
        distill([lambda inputs: inputs], Cnn([1, 8, 8], 10, [4]), data, epochs=1, overrides=asked)


def test_a_function_that_fails_is_one_line() -> None:
    def failing(inputs: Tensor) -> Tensor:
        raise KeyError("no such thing")

    data = InMemory(Digits(), labelled=100)
    with pytest.raises(
        UserError, match=r"^teachers: .*failing gives no logits: KeyError: 'no such thing'"
    ):
        distill([failing], Cnn([1, 8, 8], 10, [4]), data, epochs=1)
