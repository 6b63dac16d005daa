"""``teacher.device``: what it may be, and what follows from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ensemble_kd import settings
from ensemble_kd.asking.answers import Answers, _live
from ensemble_kd.asking.placing import expect_place, home
from ensemble_kd.config import compose
from ensemble_kd.errors import UserError
from ensemble_kd.networks import Mlp
from ensemble_kd.plan import Plan, make_plan
from ensemble_kd.report.progress import StageProgress
from ensemble_kd.teachers import Ensemble, Frozen, Keeping

RUN = ("teacher.members=[mlp_small]", "controls=[]", "+data.source.limit=200")


def planned(*overrides: str) -> Plan:
    return make_plan(compose([*RUN, *overrides]))


@pytest.mark.parametrize("right", [None, "cpu", "process"])
def test_places_that_there_are(right: str | None) -> None:
    expect_place(right)


@pytest.mark.parametrize("wrong", ["gpu", "cuda:x", "", "cpu:0", "mps", 0, True, ["cpu"]])
def test_what_is_no_place_is_one_line(wrong: Any) -> None:
    with pytest.raises(UserError, match=r"teacher\.device: expected null, process or a device"):
        expect_place(wrong)


@pytest.mark.parametrize(("name", "count"), [("cuda", 0), ("cuda:0", 0), ("cuda:2", 2)])
def test_devices_must_be_there(name: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(UserError, match=f"a device of this machine, got {name} of {count}"):
        expect_place(name)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    expect_place(name)


def test_teachers_compute_where_the_student_does_unless_told_otherwise() -> None:
    card, processor = {"accelerator": "gpu"}, {"accelerator": "cpu"}
    assert [home(None, card), home("process", card), home("cpu", card)] == ["cuda", "cuda", "cpu"]
    assert [home(None, processor), home("cuda:1", processor)] == ["cpu", "cuda:1"]


def test_only_another_kind_of_device_makes_another_student(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    digests = {"teacher/0": "digest"}
    usual = planned("cache=disk").stages[-1].digest(digests)
    for place in ("cpu", "process"):
        plan = planned("cache=disk", f"teacher.device={place}")
        assert plan.placed == place
        assert plan.stages[-1].digest(digests) == usual
    monkeypatch.setattr(settings, "expect_place", lambda placed: None)  # there are no such devices
    other = planned("cache=disk", "teacher.device=cuda:1").stages[-1]
    assert other.inexact == ("teachers on cuda",)
    assert other.digest(digests) != usual


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["teacher.device=gpu"], "teacher.device: expected null, process or a device such as"),
        (["teacher.device=process"], "expected cache=disk with cache.format=float32"),
        (
            ["teacher.device=process", "cache=disk", "cache.format=float16"],
            "got cache.where=disk, cache.format=float16",
        ),
        (
            [
                *("teacher.device=process", "cache=disk"),
                *("+trainer.strategy=ddp_spawn", "trainer.devices=2"),
            ],
            "trainer.devices=1, got 2",
        ),
        (
            ["teacher.device=cpu", "strategy=local_targets"],
            "expected null for strategy=local_targets, which does more with its teachers",
        ),
        (["cache=disk", "cache.workers=0"], "workers must be a number from 1 to 1024, got 0"),
        (["cache=disk", "cache.workers=two"], "cache.workers: expected an integer"),
        (["cache=memory", "+cache.workers=2"], "workers must be 1 unless where is disk, got 2"),
    ],
)
def test_what_cannot_be_is_one_line_before_anything_is_trained(
    overrides: list[str], said: str
) -> None:
    with pytest.raises(UserError) as refusal:
        planned(*overrides)
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_what_never_comes_again_cannot_come_from_another_process() -> None:
    plan = planned("cache=disk", "teacher.device=process", "data.cycle=null")
    with pytest.raises(UserError, match="asked never comes again: expected data without"):
        Answers(plan, Keeping("disk"), Path("store"))


def test_parts_given_as_objects_stay_in_this_process() -> None:
    plan = replace(planned("cache=disk"), config=None)
    with pytest.raises(UserError, match=r"cache\.workers: expected 1 for a run with parts given"):
        Answers(plan, Keeping("disk", workers=2), Path("store"))


def test_teachers_on_a_device_of_their_own_run_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    progress = StageProgress(1, 1, "student", 1)
    monkeypatch.setattr(progress, "announced", notes.append)
    teacher = Frozen(Mlp((1, 8, 8), 10, hidden=(4,)))
    teacher.stay(torch.device("cpu"))
    assert type(_live([teacher], "exact", progress, None)) is Ensemble
    assert notes == ["runtime plain: they are on a device of their own"]


def test_the_teachers_of_a_stage_stay_where_they_are_wanted() -> None:
    plan = planned("teacher.device=cpu", "cache=off")
    stage = plan.stages[-1]
    ensemble = Ensemble([Frozen(Mlp((1, 8, 8), 10, hidden=(4,)))])
    answers = Answers(plan, Keeping("off"), Path("store"))
    answers.of(stage, ensemble, {"teacher/0": "digest"}, StageProgress(1, 1, "student", 1))
    assert ensemble.teachers[0].home == torch.device("cpu")
