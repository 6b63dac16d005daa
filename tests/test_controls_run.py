"""Runs with controls: what they learn, what the store shares, what is reported."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ensemble_kd import distill
from ensemble_kd.config import compose
from ensemble_kd.data import Digits, InMemory
from ensemble_kd.engine import Engine, Product
from ensemble_kd.errors import UserError
from ensemble_kd.export import constructor_of
from ensemble_kd.networks import Mlp
from ensemble_kd.plan import Objects, Plan, make_plan
from ensemble_kd.stage import Given
from ensemble_kd.store import Store
from ensemble_kd.teachers import Shuffled
from ensemble_kd.training import assemble

NAMES = (
    "no_teacher",
    "label_smoothing",
    "pseudo_label",
    "single_teacher",
    "random_teacher",
    "shuffled_teacher",
)
ALL = f"controls=[{','.join(NAMES)}]"
STAGES = (
    "control/no_teacher",
    "control/label_smoothing",
    "control/pseudo_label",
    "control/single_teacher/0",
    "control/single_teacher/1",
    "control/random_teacher/untrained",
    "control/random_teacher",
    "control/shuffled_teacher",
)
OF_TWO = ("epochs=2", "teacher.epochs=1", "teacher.members=[cnn_small,cnn_tiny]")


def planned(*overrides: str) -> Plan:
    return make_plan(compose([*OF_TWO, ALL, *overrides]))


def state(product: Product) -> dict[str, Tensor]:
    return product.learner.student.state_dict()


def same(one: Product, other: Product) -> bool:
    return all(torch.equal(a, state(other)[key]) for key, a in state(one).items())


def carried_out(plan: Plan) -> dict[str, Product]:
    return Engine(plan, Store(Path("store")), Path("run"), logger=False).products()


def test_what_is_learned_and_that_a_second_strategy_finds_it() -> None:
    """Shuffled answers make another student than those of the samples themselves do."""
    few = "+trainer.limit_train_batches=8"
    products = carried_out(planned(few))
    untrained = products["control/random_teacher/untrained"]
    assert untrained.predictors() == {}
    made = assemble(untrained.stage).student.state_dict()
    assert all(torch.equal(value, made[key]) for key, value in state(untrained).items())
    learned = {*STAGES, "student"} - {untrained.stage.name}
    for one, other in combinations(learned, 2):
        assert not same(products[one], products[other]), (one, other)
    again = carried_out(planned(few, "strategy=mutual"))
    assert [name for name, product in again.items() if not product.reused] == ["student"]


class Live(Shuffled):
    """Would be shuffled, and is not."""

    def study(self, batches: Callable[[], Any]) -> None:
        """Nothing is collected."""


def test_unshuffled_it_is_the_student(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one difference between the two stages is whose answers a sample gets."""
    monkeypatch.setattr("ensemble_kd.teachers.Shuffled", Live)
    monkeypatch.setattr(Live, "__module__", "ensemble_kd.teachers.shuffled")
    products = carried_out(planned("+trainer.limit_train_batches=2", "controls=[shuffled_teacher]"))
    assert same(products["student"], products["control/shuffled_teacher"])


def test_a_run_reports_all_of_them(command: Callable[..., int]) -> None:
    quick = (
        "report.plots=false",
        "report.page=false",
        "report.onnx=false",
        "evaluation.robustness=null",
    )
    run = (*OF_TWO, ALL, "+trainer.limit_train_batches=2", "hydra.run.dir=run")
    assert command(*run, *quick) == 0
    found = json.loads(Path("run/results.json").read_text())
    shown = [name for name in STAGES if name != "control/random_teacher/untrained"]
    assert [name for name in found["predictors"] if name.startswith("control/")] == shown
    epochs = {stage["name"]: stage["epochs"] for stage in found["stages"]}
    assert [epochs[name] for name in STAGES] == [2, 2, 2, 2, 2, 0, 2, 2]


def test_a_function_as_the_teacher() -> None:
    torch.manual_seed(0)
    table = torch.randn(64, 10)

    def teacher(inputs: Tensor) -> Tensor:
        return inputs.flatten(1) @ table

    def with_student(student: nn.Module) -> Plan:
        config = compose(["epochs=1", ALL, "+trainer.limit_train_batches=2"])
        given = Objects(Given(student, constructor_of(student)), teachers=[teacher])
        return make_plan(config, InMemory(Digits(), labelled=100), given)

    products = carried_out(with_student(Mlp([1, 8, 8], 10, [8])))
    names = [name for name in STAGES if name != "control/single_teacher/1"]
    assert list(products) == ["student", *names]
    untrained, student = products["control/random_teacher/untrained"], products["student"]
    assert type(untrained.learner.student) is type(student.learner.student)
    with pytest.raises(UserError, match=r"^student: controls: control/random_teacher makes"):
        with_student(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))


def test_the_argument_of_distill() -> None:
    data = InMemory(Digits(), labelled=100)
    for controls, words in ((["a"], "no control 'a'"), ("a", r"expected a list .*got 'a'")):
        with pytest.raises(UserError, match=f"^controls: {words}"):
            distill([Mlp([1, 8, 8], 10)], Mlp([1, 8, 8], 10), data, controls=controls)
