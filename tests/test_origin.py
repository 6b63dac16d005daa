"""Where a student starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ensemble_kd.config import compose
from ensemble_kd.engine import Engine
from ensemble_kd.errors import UserError
from ensemble_kd.origin import INITIAL, Origin, open_origin, start
from ensemble_kd.plan import Plan, make_plan
from ensemble_kd.store import Store

DEEP = "teacher.members=[{network: mlp_small, hidden: [16, 16, 16, 16]}]"
SHALLOW = ("student=mlp_small", "student.hidden=[16,16]")


def planned(*overrides: str) -> Plan:
    return make_plan(compose([DEEP, *SHALLOW, "epochs=1", *overrides]))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"teacher": 1}, "initial.teacher: expected the number of one of 1 teachers, got 1"),
        ({"teacher": True}, "initial.teacher: expected the number of one of 1 teachers, got True"),
        ({"teacher": 0, "layers": []}, "initial.layers: expected numbers of layers or null"),
        ({"teacher": 0, "layers": ["a"]}, "initial.layers: expected numbers of layers or null"),
        ({"layers": [0]}, "initial: expected {teacher: NUMBER, layers: [...]} or {artefact:"),
        ({"teacher": 0, "artefact": "x"}, "initial: expected {teacher: NUMBER"),
        ({"teacher": 0, "layer": [0]}, "initial: expected {teacher: NUMBER"),
        ("teacher/0", "initial: expected {teacher: NUMBER"),
        ({"artefact": "nowhere"}, "nowhere: expected an artefact folder"),
    ],
)
def test_what_cannot_be_is_refused(asked: Any, words: str) -> None:
    with pytest.raises(UserError) as refusal:
        open_origin(asked, ["teacher/0"], None, ())
    assert str(refusal.value).startswith(words)


def test_nothing_asked_is_nowhere() -> None:
    assert open_origin(None, ["teacher/0"], None, ()) == (None, {})


def blocks(depth: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Sequential(*(nn.Linear(4, 4) for _ in range(depth))), nn.Linear(4, 3))


def test_the_layers_are_those_that_were_named() -> None:
    student, teacher = blocks(2, 0), blocks(4, 1)
    start(student, Origin("teacher/0", (3, 1)), {"teacher/0": teacher}, "student")
    own, other = student.state_dict(), teacher.state_dict()
    for mine, theirs in (("0.0", "0.3"), ("0.1", "0.1"), ("1", "1")):
        assert torch.equal(own[f"{mine}.weight"], other[f"{theirs}.weight"])


def test_layers_that_do_not_fit_are_one_line() -> None:
    with pytest.raises(UserError, match=r"^initial: stage student: layers: expected numbers from"):
        start(blocks(2, 0), Origin("t", (0, 7)), {"t": blocks(4, 1)}, "student")


@pytest.mark.parametrize("strategy", ["parallel", "features_first", "assistant"])
def test_a_run_starts_its_student_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, strategy: str
) -> None:
    monkeypatch.setattr("ensemble_kd.engine.train", lambda *_, **__: 0.0)
    hint = ("objective=hint", "objective.student_layers=[layers.0]")
    features = (*hint, "objective.teacher_layers=[layers.0]") * (strategy == "features_first")
    start_at = "initial={teacher: 0, layers: [0, 2]}"
    plan = planned(f"strategy={strategy}", *features, start_at)
    products = Engine(plan, Store(tmp_path), tmp_path, logger=False).products()

    teacher = products["teacher/0"].learner.student.state_dict()
    for name in ("student", "control/no_teacher"):
        own_state = products[name].learner.student.state_dict()
        for mine, theirs in (("layers.0", "layers.0"), ("layers.1", "layers.2")):
            parts = [key for key in own_state if key.startswith(f"{mine}.")]
            assert parts
            for key in parts:
                assert torch.equal(own_state[key], teacher[key.replace(mine, theirs, 1)]), key
    assert all(
        stage.origin is None for stage in plan.stages if stage.name[:7] in ("teacher", "assista")
    )


def test_where_it_starts_makes_another_student() -> None:
    last = planned("initial={teacher: 0, layers: [0, 2]}").stages[1]
    other = planned("initial={teacher: 0, layers: [0, 1]}").stages[1]
    plainly = planned().stages[1]
    digests = {"teacher/0": "a"}
    assert len({each.digest(digests) for each in (last, other, plainly)}) == 3


def test_an_artefact_may_be_the_start_and_teaches_nobody(tmp_path: Path) -> None:
    first = planned("controls=[]")
    product = Engine(first, Store(tmp_path), tmp_path, logger=False).products()["student"]
    plan = planned(f"initial={{artefact: {product.artefact.folder}}}", "controls=[]")
    assert set(plan.origins) == {INITIAL}
    assert plan.teachers == ("teacher/0",)
    assert plan.stages[-1].origin == Origin(INITIAL, None)
    start_at = f"initial={{artefact: {product.artefact.folder}}}"
    with pytest.raises(UserError, match=r"^initial: stage student: layers: "):
        make_plan(compose(["student=cnn_tiny", start_at]))


def test_a_start_that_no_stage_can_use_is_refused() -> None:
    tasks = ("data=digits_tasks", "strategy=multi_task", "initial={teacher: 0}")
    with pytest.raises(UserError, match=r"^initial"):
        planned(*tasks)
