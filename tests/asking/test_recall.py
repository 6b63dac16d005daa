"""What teachers said: found, or asked for and kept."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from ensemble_kd import fingerprint
from ensemble_kd.asking.inquiry import Inquiry
from ensemble_kd.asking.recall import Recall
from ensemble_kd.cache import Float32, Places, Record
from ensemble_kd.data import Digits, InMemory, Noise, Recurring
from ensemble_kd.errors import UserError
from ensemble_kd.evaluation import Evaluation
from ensemble_kd.networks import Cnn, Mlp
from ensemble_kd.report.progress import StageProgress
from ensemble_kd.teachers import Ensemble, Frozen, Memory, Mixture, Remembered, memory
from ensemble_kd.types import Batch

SIZE = 32


class Counting(Ensemble):
    """Counts how many batches its teachers are asked about, and stops after some."""

    asked = 0
    stop: int | None = None

    def own(self, inputs: Any) -> Any:
        if Counting.asked == Counting.stop:
            raise KeyboardInterrupt
        Counting.asked += 1
        return super().own(inputs)


@pytest.fixture(autouse=True)
def _anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counting, "asked", 0)
    monkeypatch.setattr(Counting, "stop", None)


@pytest.fixture
def teachers() -> dict[str, Frozen]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        cnn, mlp = Cnn((1, 8, 8), 10, widths=(8, 16)), Mlp((1, 8, 8), 10, hidden=(32,))
    return {"teacher/0": Frozen(cnn, ["stages"]), "teacher/1": Frozen(mlp, ["layers.0"])}


def inquired(recurring: Recurring, data: str = "data") -> Inquiry:
    threads = torch.get_num_threads()
    return Inquiry(
        "train", data, recurring, SIZE, "32-true", "cpu", threads, fast=False, format=Float32()
    )


class Asked(NamedTuple):
    """What was found, and how many batches the teachers were asked about."""

    remembered: dict[str, Remembered]
    batches: int


def ask(
    teachers: dict[str, Frozen],
    root: Path | None,
    digests: dict[str, str] | None = None,
    recall: Recall | None = None,
) -> Asked:
    data = InMemory(Digits(limit=200), batch_size=SIZE, augment=Noise(0.1), cycle=3)
    recurring = data.recurring()
    assert recurring is not None
    assert len(list(recurring.chunks(SIZE))) == 15
    inquiry = inquired(recurring, data.digest)
    recall = recall or Recall(root)
    before = Counting.asked
    found = recall.of(
        teachers,
        digests or {name: f"digest of {name}" for name in teachers},
        inquiry,
        lambda members, batches: Counting(members),
        StageProgress(1, 1, "student", 1, io.StringIO()),
    )
    return Asked(found, Counting.asked - before)


def expect_right(asked: Asked, teachers: dict[str, Frozen]) -> None:
    """Every answer is what the teacher says of that batch, with its features."""
    data = InMemory(Digits(limit=200), batch_size=SIZE, augment=Noise(0.1), cycle=3)
    for batch in data.train_dataloader():
        assert batch.view is not None
        for name, teacher in teachers.items():
            live, read = (
                teacher.own(batch.inputs),
                asked.remembered[name].read(batch.index, batch.view),
            )
            assert torch.equal(live.logits, read.logits)
            assert live.features.keys() == read.features.keys()
            assert all(torch.equal(live.features[tap], read.features[tap]) for tap in live.features)


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_logits_and_features_are_kept_to_the_last_bit(
    teachers: dict[str, Frozen], where: str
) -> None:
    asked = ask(teachers, Path("store") if where == "disk" else None)
    expect_right(asked, teachers)
    assert asked.batches == 15  # all of them asked together, each input prepared once


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_only_what_is_missing_is_asked_for(teachers: dict[str, Frozen], where: str) -> None:
    root = Path("store") if where == "disk" else None
    recall = Recall(root)
    plain = {name: Frozen(teacher.network) for name, teacher in teachers.items()}
    assert ask(plain, root, recall=recall).batches == 15
    assert ask(plain, root, recall=recall).batches == 0
    one = {"teacher/1": teachers["teacher/1"]}
    again = ask(one, root, recall=recall)  # its features are new
    assert again.batches == 15
    expect_right(again, one)
    assert ask(one, root, recall=recall).batches == 0


def test_an_interrupted_filling_goes_on(teachers: dict[str, Frozen]) -> None:
    Counting.stop = 6
    with pytest.raises(KeyboardInterrupt):
        ask(teachers, Path("store"))
    Counting.stop = None
    asked = ask(teachers, Path("store"))
    assert asked.batches == 9
    expect_right(asked, teachers)


@pytest.mark.parametrize(
    "change",
    [
        {"precision": "bf16-mixed"},
        {"fast": True},
        {"split": "val"},
        {"data": "other"},
        {"batch_size": 16},
        {"threads": 64},
    ],
)
def test_any_change_misses(teachers: dict[str, Frozen], change: dict[str, Any]) -> None:
    recurring = InMemory(Digits(limit=200), batch_size=SIZE).recurring()
    assert recurring is not None
    inquiry, teacher = inquired(recurring), teachers["teacher/0"]
    said = inquiry.described(teacher, "t", "logits")
    assert replace(inquiry, **change).described(teacher, "t", "logits") != said
    assert inquiry.described(teacher, "u", "logits") != said
    assert inquiry.described(teacher, "t", "feature x") != said
    fewer = replace(inquiry, recurring=replace(recurring, index=recurring.index[:-1]))
    assert fewer.described(teacher, "t", "logits") != said


def test_code_of_the_users_own_is_part_of_the_key(
    teachers: dict[str, Frozen], monkeypatch: pytest.MonkeyPatch
) -> None:
    recurring = InMemory(Digits(limit=200), batch_size=SIZE).recurring()
    assert recurring is not None
    inquiry = inquired(recurring)
    own = type("Net", (nn.Linear,), {"__module__": "of_a_user.nets"})(2, 2)
    monkeypatch.setattr(fingerprint, "code_digest", lambda package: f"code of {package}")
    said = inquiry.described(Frozen(own), "t", "logits")
    assert said["foreign_code"] == {"of_a_user": "code of of_a_user"}
    assert inquiry.described(teachers["teacher/0"], "t", "logits")["foreign_code"] == {}


def test_memory_is_given_back(teachers: dict[str, Frozen]) -> None:
    recall = Recall(None)
    ask(teachers, None, recall=recall)
    logits, cnn, mlp = 420 * 10 * 4, 420 * 16 * 4 * 4 * 4, 420 * 32 * 4
    assert recall.size_but(()) == 2 * logits + cnn + mlp
    assert recall.size_but({"teacher/0"}) == logits + mlp
    recall.forget_but({"teacher/1"})
    assert recall.size_but(()) == logits + mlp
    assert ask({"teacher/1": teachers["teacher/1"]}, None, recall=recall).batches == 0
    assert ask({"teacher/0": teachers["teacher/0"]}, None, recall=recall).batches == 15


@pytest.mark.parametrize("light", [True, False])
def test_light_records_are_lifted_into_memory(
    teachers: dict[str, Frozen], light: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "LIGHT", 2 * 420 * 10 * 4 - (not light))
    plain = {name: Frozen(teacher.network) for name, teacher in teachers.items()}
    asked = ask(plain, Path("store"))
    kinds = {type(each.logits) for each in asked.remembered.values()}
    assert kinds == ({Memory} if light else {Record})
    expect_right(asked, plain)


def test_teachers_with_one_digest_share_what_is_kept(teachers: dict[str, Frozen]) -> None:
    same = {
        "teacher/0": teachers["teacher/0"],
        "teacher/1": Frozen(teachers["teacher/0"].network, ["stages"]),
    }
    asked = ask(same, Path("store"), {"teacher/0": "one", "teacher/1": "one"})
    expect_right(asked, same)
    records = [path for path in Path("store/outputs").iterdir() if path.name[0] != "."]
    assert len(records) == 2  # logits and a feature


def test_what_does_not_fit_together_is_refused_before_the_first_byte(
    teachers: dict[str, Frozen], monkeypatch: pytest.MonkeyPatch
) -> None:
    logits, feature = 3 * 140 * 10 * 4, 3 * 140 * 16 * 4
    enough = shutil._ntuple_diskusage(10**6, 0, 2 * logits + feature)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: enough)
    with pytest.raises(UserError, match=r"the outputs to be kept take .* but the disk has"):
        ask(teachers, Path("store"))
    assert not list(Path("store/outputs").rglob("*.bin"))
    assert Counting.asked == 0


def test_float64_is_not_kept_as_less(teachers: dict[str, Frozen]) -> None:
    class Double(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return inputs.flatten(1)[:, :10].double()

    double = {"teacher/0": Frozen(Double())}
    with pytest.raises(UserError, match="expected teachers that answer in float32, got teacher/0"):
        ask(double, Path("store"))
    expect_right(ask(double, None), double)


def test_evaluation_looks_up_what_is_known_also_for_a_mixture() -> None:
    class Listening(nn.Linear):
        runs = 0

        def forward(self, inputs: Tensor) -> Tensor:
            self.runs += 1
            return super().forward(inputs)

    generator = torch.Generator().manual_seed(0)
    inputs, target = torch.randn(30, 5, generator=generator), torch.arange(30) % 3
    parts = (part.split(7) for part in (inputs, target, torch.arange(30)))
    loader = [Batch(*three) for three in zip(*parts, strict=True)]
    first, second = Listening(5, 3), Listening(5, 3)
    both = Mixture([first, second])
    predictors = {"teacher/0": Frozen(first), "teacher/1": second, "ensemble": both}
    pairs = [("teacher/0", "ensemble")]
    live = Evaluation().measure(predictors, loader, 3, pairs)[:2]
    said = torch.cat([first(batch.inputs) for batch in loader]).detach()
    first.runs = second.runs = 0
    known = {"teacher/0": Memory(Places(torch.arange(30), 1), said[:, None])}
    assert Evaluation().measure(predictors, loader, 3, pairs, known=known)[:2] == live
    assert (first.runs, second.runs) == (0, 5)
