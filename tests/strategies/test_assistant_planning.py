"""What is tried, and what becomes of the answer; no network is trained here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import ensemble_kd.plan
import ensemble_kd.settling
from ensemble_kd.config import compose
from ensemble_kd.costs import multiply_adds
from ensemble_kd.export import count_parameters
from ensemble_kd.networks import Cnn
from ensemble_kd.plan import Plan, make_plan
from ensemble_kd.settling import settle
from ensemble_kd.strategies.assistant_planning import AssistantPlanning

AUTO = ("strategy=assistant", "strategy.assistants=auto", "epochs=2", "teacher.epochs=1")
ONE = ("teacher.members=[cnn_large]", "strategy.candidates=[cnn_medium]")
TWO = ("teacher.members=[cnn_large]", "strategy.candidates=[cnn_medium,cnn_small]")
AMPLE = ("strategy.budget=999", "strategy.proxy_epochs=1")


@pytest.fixture(autouse=True)
def unrehearsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trying all stages out takes most of the time of planning; whole runs do it."""
    monkeypatch.setattr(ensemble_kd.plan, "_rehearsed", lambda plan: plan.stages)


def planned(*overrides: str) -> Plan:
    return make_plan(compose([*AUTO, *overrides]))


def digests(plan: Plan) -> dict[str, str]:
    known: dict[str, str] = {}
    for stage in plan.stages:
        known[stage.name] = stage.digest(known)
    return known


def record() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path("run/assistants.json").read_text())
    return content


class Tried:
    """Stands for the training of proxies: accuracies by path, and what was asked."""

    def __init__(self, table: Mapping[str, tuple[float, float]]) -> None:
        self.table = table
        self.plans: list[Plan] = []

    def carry_out(self, plan: Plan) -> dict[str, str]:
        self.plans.append(plan)
        return {stage.name: stage.name for stage in plan.stages}

    def accuracy(self, plan: Plan, name: str) -> float:
        _, path, seed, last = name.split("/")
        assert last == "student"
        return self.table[path][int(seed)]


def settled(
    monkeypatch: pytest.MonkeyPatch, table: Mapping[str, tuple[float, float]], *overrides: str
) -> tuple[Plan, Tried]:
    """The plan with the answer to proxies with these accuracies."""
    tried = Tried(table)
    monkeypatch.setattr(ensemble_kd.settling, "_accuracy", tried.accuracy)
    plan, _ = settle(planned(*overrides), Path("run"), tried.carry_out)  # type: ignore[arg-type]
    return plan, tried


def test_candidates_divide_the_way_into_equal_factors() -> None:
    plan = planned(ONE[0], "strategy.budget=999")
    found = AssistantPlanning("auto", budget=999).settle(
        plan, lambda trials: dict.fromkeys(trials, 0.5)
    )
    named = {each["name"]: each for each in found.record["candidates"]}
    assert list(named) == ["student x2.07", "teacher/0 x0.33", "teacher/0 x0.58"]
    for step, each in enumerate(named.values(), start=1):
        assert each["parameters"] == pytest.approx(678 * (49_818 / 678) ** (step / 4), rel=0.04)
    widest = Cnn((1, 8, 8), 10, (4, 8), grid=2, scale=2.07)
    assert named["student x2.07"]["parameters"] == count_parameters(widest)
    assert named["student x2.07"]["multiply_adds"] == multiply_adds(widest, torch.zeros(1, 1, 8, 8))
    assert found.lines == [
        "assistants: none: no candidate beat the direct path by more than twice the noise: the "
        "best, student x2.07, had +0.0 points on validation over the direct path in 2 proxies of "
        f"2 epochs (noise 0.0, cost {found.record['cost']:.2f} of the student's own training)"
    ]


def test_all_paths_have_the_seeds_the_epochs_and_the_teachers_of_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = {"direct": (0.5, 0.5), "cnn_medium": (0.4, 0.4), "cnn_small": (0.3, 0.3)}
    plan, tried = settled(monkeypatch, table, *TWO, *AMPLE)
    (proxies,) = tried.plans
    names = [stage.name for stage in proxies.stages]
    assert names == [
        "teacher/0",
        *("proxy/direct/0/student", "proxy/direct/1/student"),
        *("proxy/cnn_small/0/assistant/0", "proxy/cnn_small/0/student"),
        *("proxy/cnn_small/1/assistant/0", "proxy/cnn_small/1/student"),
        *("proxy/cnn_medium/0/assistant/0", "proxy/cnn_medium/0/student"),
        *("proxy/cnn_medium/1/assistant/0", "proxy/cnn_medium/1/student"),
    ]
    stages = {stage.name: stage for stage in proxies.stages}
    assert stages["proxy/cnn_small/1/student"].teachers == ("proxy/cnn_small/1/assistant/0",)
    assert stages["proxy/cnn_small/1/assistant/0"].teachers == ("teacher/0",)
    assert stages["teacher/0"].digest({}) == digests(plan)["teacher/0"]
    assert {stage.epochs for stage in proxies.stages[1:]} == {1}
    for number in "01":
        students = [s for name, s in stages.items() if name.endswith(f"{number}/student")]
        assert len({student.seed for student in students}) == 1
    assert len({stage.seed for stage in proxies.stages}) == 1 + 2 + 2  # assistants have their own


def test_none_is_the_student_of_parallel(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {"direct": (0.5, 0.5), "cnn_medium": (0.5, 0.5)}
    plan, _ = settled(monkeypatch, table, *ONE, *AMPLE)
    parallel = make_plan(compose([*AUTO[2:], ONE[0]]))
    assert digests(plan) == digests(parallel)
    assert plan.open is None
    assert record()["answer"] == []


@pytest.mark.parametrize("options", [(), ("strategy.dense=true", "strategy.drop=0.25")])
def test_one_that_helps_becomes_the_chain(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    table = {"direct": (0.5, 0.6), "cnn_medium": (0.52, 0.63)}
    plan, _ = settled(monkeypatch, table, *ONE, *AMPLE, *options)
    named = planned(ONE[0], "strategy.assistants=[cnn_medium]", *options)
    assert digests(plan) == digests(named)
    assert "assistant/0" in digests(plan)
    said = capsys.readouterr().out
    assert "assistants: cnn_medium (9,114 parameters): +2.5 points on validation" in said
    found = record()
    assert found["answer"] == ["cnn_medium"]
    assert found["paths"][1] == {"assistants": ["cnn_medium"], "accuracy": [0.52, 0.63]}
    assert found["rounds"][0]["paths"][0]["gains"] == pytest.approx([0.02, 0.03])


@pytest.mark.parametrize(
    ("both", "answer"), [((0.9, 0.9), ["cnn_medium", "cnn_small"]), ((0.6, 0.6), ["cnn_small"])]
)
def test_a_second_assistant_must_help_the_first(
    monkeypatch: pytest.MonkeyPatch, both: tuple[float, float], answer: list[str]
) -> None:
    table = {"direct": (0.5, 0.5), "cnn_medium": (0.6, 0.6), "cnn_small": (0.7, 0.7)}
    table["cnn_medium_and_cnn_small"] = both
    plan, tried = settled(monkeypatch, table, *TWO, *AMPLE)
    assert record()["answer"] == answer
    assert len(plan.stages) == 3 + len(answer)
    before, again = (digests(each) for each in tried.plans)
    # The larger assistant of the chain is the one that was tried alone.
    chained = again["proxy/cnn_medium_and_cnn_small/0/assistant/0"]
    assert chained == before["proxy/cnn_medium/0/assistant/0"]


def test_no_second_assistant_beyond_the_budget(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = {"direct": (0.5, 0.5), "cnn_medium": (0.6, 0.6), "cnn_small": (0.7, 0.7)}
    # The first round costs 23.8; a chain of both, whose first assistant is there, 4.9.
    plan, _ = settled(monkeypatch, table, *TWO, "strategy.budget=28.6")
    assert record()["answer"] == ["cnn_small"]
    assert record()["cost"] == pytest.approx(23.76, abs=0.01)
    assert len(plan.stages) == 4
    said = capsys.readouterr().out
    assert "not tried: cnn_medium and cnn_small: the rest of the budget is too small" in said
