"""Runs whose students are compiled while they learn."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from ensemble_kd.config import compose
from ensemble_kd.engine import Engine, Product
from ensemble_kd.errors import UserError
from ensemble_kd.networks import compiled as module
from ensemble_kd.networks.compiled import compiled_forward
from ensemble_kd.plan import make_plan
from ensemble_kd.stage import Stage
from ensemble_kd.store import Store
from ensemble_kd.teachers.runtimes import Unavailable
from ensemble_kd.teachers.runtimes.compiled import check_compiler

SMALL = (
    "epochs=1",
    "teacher.epochs=1",
    "batch_size=16",
    "student=mlp_small",
    "teacher.members=[mlp_small]",
    "+trainer.limit_train_batches=4",
    "controls=[]",
)
FEATURES = (
    "objective=hint",
    "objective.student_layers=[layers]",
    "objective.teacher_layers=[layers]",
)


def stages(*overrides: str) -> tuple[Stage, ...]:
    return make_plan(compose([*SMALL, *overrides])).stages


def trained(*overrides: str, store: str = "store") -> dict[str, Product]:
    plan = make_plan(compose([*SMALL, *overrides]))
    return Engine(plan, Store(Path(store)), Path("run"), logger=False).products()


def apart(one: Product, other: Product) -> float:
    """The largest difference of two stages' weights, those of the strategy included."""
    pairs = [
        (a, b)
        for mine, its in (
            (one.learner.student, other.learner.student),
            (one.learner.strategy, other.learner.strategy),
        )
        for (name, a), (again, b) in zip(
            mine.state_dict().items(), its.state_dict().items(), strict=True
        )
        if name == again
    ]
    assert pairs
    return max(float((a - b).abs().max()) for a, b in pairs if a.numel())


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """torch.compile without a compiler behind it; what it was given."""
    given: list[object] = []
    real = torch.compile

    def compile(function: object, backend: str) -> object:
        given.append(function)
        return real(function, backend=backend)  # type: ignore[call-overload]

    monkeypatch.setattr(torch, "compile", compile)
    monkeypatch.setattr(module, "BACKEND", "eager")
    monkeypatch.setattr("ensemble_kd.rehearsal.check_compiler", lambda device: None)
    return given


@pytest.mark.parametrize(
    ("overrides", "count"),
    [
        ((), 2),
        (("strategy=okddip", "strategy.split=null"), 5),
        (FEATURES, 2),
    ],
)
def test_every_network_that_learns_is_compiled_and_plain_afterwards(
    overrides: tuple[str, ...], count: int, eager: list[object]
) -> None:
    compiled = trained("compile=true", *overrides)
    assert len(eager) == count
    plain = trained(*overrides)
    assert len(eager) == count
    for name, product in compiled.items():
        assert apart(product, plain[name]) == 0.0
        assert all(compiled_forward(part) is None for part in product.learner.student.modules())
        assert not plain[name].reused
    # What is kept is a network like any other.
    again = trained("compile=true", *overrides)
    assert all(product.reused for product in again.values())
    assert len(eager) == count


def test_it_makes_another_stage(eager: list[object]) -> None:
    for one, other in zip(stages(), stages("compile=true"), strict=True):
        assert not one.compiled
        assert other.compiled
        known = dict.fromkeys(one.teachers, "")
        assert one.digest(known) != other.digest(known)


def test_a_strategy_that_runs_parts_is_refused_before_anything_is_trained(
    eager: list[object],
) -> None:
    with pytest.raises(UserError) as refusal:
        stages("compile=true", "strategy=one", "student=cnn_tiny", "teacher.members=[cnn_tiny]")
    assert str(refusal.value) == (
        "compile: expected networks that run as a whole, got some of which One runs the parts "
        "(stage student): compile=false, or networks that share no layers"
    )


def test_no_compiler_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UserError, match=r"^compile: no C\+\+ compiler was found .*compile=false$"):
        stages("compile=true")
    assert stages()


@pytest.mark.parametrize("value", ["1", "maybe", "null"])
def test_it_is_true_or_false(value: str) -> None:
    with pytest.raises(UserError, match=r"^compile: expected true or false, got"):
        stages(f"compile={value}")


@pytest.mark.slow
def test_the_compiler_itself() -> None:
    try:
        check_compiler(torch.device("cpu"))
    except Unavailable as closed:
        pytest.skip(closed.reason)
    plain = trained()
    compiled = trained("compile=true")
    again = trained("compile=true", store="other")
    for name, product in compiled.items():
        assert apart(product, plain[name]) < 1e-4
        assert apart(product, again[name]) == 0.0
        assert not again[name].reused
