"""Assistants that are planned in whole runs, and what is refused before anything is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import ensemble_kd.settling
from ensemble_kd import distill
from ensemble_kd.config import compose
from ensemble_kd.costs import multiply_adds
from ensemble_kd.data import Arrays, InMemory
from ensemble_kd.engine import Engine, Product
from ensemble_kd.errors import UserError
from ensemble_kd.export import count_parameters
from ensemble_kd.networks import Cnn
from ensemble_kd.plan import Objects, Plan, make_plan
from ensemble_kd.run import Result
from ensemble_kd.settling import settle
from ensemble_kd.stage import Given
from ensemble_kd.store import Store
from ensemble_kd.strategies.assistant_planning import AssistantPlanning

AUTO = ("strategy=assistant", "strategy.assistants=auto", "epochs=2", "teacher.epochs=1")
ONE = ("teacher.members=[cnn_large]", "strategy.candidates=[cnn_medium]")
AMPLE = ("strategy.budget=999", "strategy.proxy_epochs=1")
QUICK = ("+trainer.limit_train_batches=2", "logger=none", "hydra.run.dir=run")
BARE = (
    *("report.plots=false", "report.onnx=false", "report.page=false", "report.table=false"),
    "evaluation.robustness=null",
)

Command = Callable[..., int]


def record(folder: str = "run") -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(folder, "assistants.json").read_text())
    return content


def own_data() -> InMemory:
    rng = np.random.default_rng(0)
    np.savez("own.npz", x=rng.normal(size=(90, 1, 8, 8)), y=np.arange(90) % 3)
    return InMemory(Arrays("own.npz"), batch_size=16)


def work_in(store: Path) -> tuple[int, int]:
    """Epochs times multiply-adds of all proxies in a store, and how many there are."""
    work = count = 0
    for path in store.glob("*/provenance.json"):
        told = json.loads(path.read_text())
        if told["name"].startswith("proxy/"):
            network = ensemble_kd.load(path.parent)
            work += told["stage"]["epochs"] * multiply_adds(network, torch.zeros(1, 1, 8, 8))
            count += 1
    return work, count


def carried_out(plan: Plan) -> dict[str, Product]:
    return Engine(plan, Store(Path("store")), Path(), logger=None).products()


def test_proxies_stay_within_the_budget_and_are_trained_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    candidates = "strategy.candidates=[cnn_medium,cnn_small]"
    asked = (*AUTO, ONE[0], candidates, "strategy.budget=30", QUICK[0], "controls=[]")
    plan = make_plan(compose(asked))

    def looked() -> None:
        raise AssertionError("test data decides nothing")

    monkeypatch.setattr(type(plan.data), "test_dataloader", lambda self: looked())
    settle(plan, Path("run"), carried_out)
    found = record()
    work, count = work_in(Path("store"))
    own = 2 * found["student"]["multiply_adds"]
    assert work / own == pytest.approx(found["cost"])
    assert 15 < found["cost"] <= 30  # two epochs of each would be too many
    said = capsys.readouterr().out
    assert said.count("val accuracy") == 1 + count

    settle(plan, Path("again"), carried_out)
    assert record("again") == found
    again = capsys.readouterr().out
    assert again.count("reused") == said.count("] ")
    assert "val accuracy" not in again


def test_no_assistant_is_a_run_of_parallel(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ensemble_kd.settling, "_accuracy", lambda plan, product: 0.5)
    asked = (*AUTO, *ONE, *AMPLE, *QUICK[:2], *BARE, "hydra.sweep.dir=sweep")
    assert command("--multirun", *asked) == 0
    assert record("sweep/0")["answer"] == []
    known: dict[str, str] = {}
    for stage in make_plan(compose([*AUTO[2:], ONE[0], QUICK[0]])).stages:
        known[stage.name] = stage.digest(known)
    results = json.loads(Path("sweep/0/results.json").read_text())
    assert {stage["name"]: stage["digest"] for stage in results["stages"]} == known


def distilled(teacher: nn.Module, student: nn.Module, *overrides: str) -> Result:
    return distill(
        [teacher],
        student,
        own_data(),
        "assistant",
        epochs=1,
        controls=[],
        overrides=["strategy.assistants=auto", "teacher.gate=false", *BARE, *overrides],
        folder="run",
    )


def test_objects_of_reference_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    def accuracy(plan: Plan, product: Product) -> float:
        return float("direct" not in product.stage.name)

    monkeypatch.setattr(ensemble_kd.settling, "_accuracy", accuracy)
    teacher, student = (Cnn((1, 8, 8), 3, widths) for widths in ((8, 16), (2, 4)))
    found = distilled(teacher, student, "strategy.budget=10").results["predictors"]
    assert list(found) == ["teacher/0", "ensemble", "assistant/0", "student"]
    (chosen,) = record()["answer"]
    assert chosen.startswith("student x")
    sizes = {each["name"]: each["parameters"] for each in record()["candidates"]}
    assert found["assistant/0"]["parameters"] == sizes[chosen]
    assert found["student"]["parameters"] == count_parameters(student)


class Unknown(nn.Sequential):
    """Its constructor does not tell what it was called with."""

    def __init__(self, hidden: int) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, hidden), nn.Linear(hidden, 3))


def test_objects_of_other_networks_are_one_line() -> None:
    with pytest.raises(UserError, match=r"^strategy\.assistants: auto .* strategy\.candidates$"):
        distilled(Unknown(9), Unknown(3))
    assert not Path("run").exists()


def test_a_teacher_that_cannot_be_counted_is_one_line() -> None:
    function = [lambda inputs: torch.zeros(len(inputs), 3)]
    objects = Objects(student=Given(Unknown(3)), teachers=function)
    with pytest.raises(UserError, match=r"teacher/0 runs in another library"):
        make_plan(compose([*AUTO, "teacher.gate=false"]), own_data(), objects)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"assistants": "automatic"}, "strategy.assistants: expected auto or a list"),
        ({"assistants": None}, "strategy.assistants: expected auto or a list"),
        ({"budget": 0}, "strategy.budget: expected a finite number > 0, got 0"),
        ({"budget": float("nan")}, "strategy.budget: expected a finite number > 0, got nan"),
        ({"proxy_epochs": 0}, "strategy.proxy_epochs: expected 1 or more, got 0"),
        ({"proxy_seeds": 1}, "strategy.proxy_seeds: expected 2 or more"),
        ({"candidates": ["a", "a"]}, "strategy.candidates: expected each once, got a twice"),
    ],
)
def test_settings_have_their_ranges(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as refusal:
        AssistantPlanning(**{"assistants": "auto", **arguments})
    assert str(refusal.value).startswith(message)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("strategy.assistants=automatic", "strategy.assistants: expected auto or a list"),
        ("strategy.budget=much", "budget: expected a number, got 'much'"),
        ("strategy.budget=1e-3", "strategy.budget: expected at least 18.84 for 2 proxies of 1"),
        ("strategy.proxy_epochs=3", "strategy.proxy_epochs: expected at most the 2 of epochs"),
        ("strategy.candidates=[cnn_medum]", "no network 'cnn_medum' in the group student"),
        ("strategy.candidates=cnn_medium", "expected a list of networks"),
        ("strategy.candidates=[mlp_large,cnn_tiny]", "strategy.candidates: expected networks with"),
        ("teacher.members=[cnn_tiny]", "auto needs a student smaller than every teacher"),
        ("strategy.settle=3", "strategy.settle: expected a question to be settled, got 3"),
    ],
)
def test_mistakes_are_single_lines_and_nothing_is_written(
    command: Command, capsys: pytest.CaptureFixture[str], override: str, message: str
) -> None:
    assert command(*AUTO, *ONE, override, *QUICK) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert list(Path().iterdir()) == []
