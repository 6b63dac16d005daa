"""Whole runs whose objectives study the teachers before the student is trained."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ensemble_kd import training
from ensemble_kd.config import compose
from ensemble_kd.engine import CURVES, Engine, Product
from ensemble_kd.plan import make_plan
from ensemble_kd.rehearsal import acquaint
from ensemble_kd.report.curves import read_points
from ensemble_kd.stage import derived_seed
from ensemble_kd.store import Store
from ensemble_kd.strategies import Strategy
from ensemble_kd.teachers import Ensemble
from ensemble_kd.training import assemble, frozen, quiet_seed, study

SMALL = ("teacher.members=[cnn_small,cnn_small]", "epochs=2", "teacher.epochs=2", "controls=[]")


def trained(*overrides: str) -> dict[str, Product]:
    plan = make_plan(compose([*SMALL, *overrides]))
    return Engine(plan, Store(Path("store")), Path("run"), logger=False).products()


def curve(products: Mapping[str, Product], name: str) -> list[float]:
    points = read_points(products["student"].artefact.folder / CURVES)
    return [point.value for point in points if point.name == f"student/{name}"]


def kept(products: Mapping[str, Product], ending: str) -> list[Tensor]:
    """What the student's strategy keeps under names that end like this."""
    state = products["student"].learner.strategy.state_dict()
    return [value for name, value in state.items() if name.endswith(ending)]


@pytest.mark.parametrize("balance", ["variance", "phi_s"])
def test_one_override_standardises_the_features_of_every_teacher(balance: str) -> None:
    overrides = ("objective=hint", f"objective.balance={balance}")
    first = trained(*overrides)
    again = trained(*overrides)
    assert all(product.reused for product in again.values())
    scales = kept(first, "units.0.scale")
    assert len(scales) == 2
    assert all((scale >= 0).all() and (scale != 1).all() for scale in scales)
    found = kept(again, "units.0.scale")
    assert all(torch.equal(a, b) for a, b in zip(scales, found, strict=True))
    hints = curve(first, "hint")
    assert 0.0 < hints[-1] < hints[0]
    assert hints[0] < 3.0  # features of spread one, and a student that says little at first


def test_margins_are_measured_and_the_student_comes_closer() -> None:
    products = trained(
        "objective=overhaul",
        "teacher.members=[cnn_small,cnn_large]",
        "objective.teacher_layers=[[stages.0.norm,stages.1.norm],[stages.0.norm,stages.2.norm]]",
    )
    margins = kept(products, "margin")
    assert len(margins) == 4
    assert all((margin <= 0).all() and (margin < 0).any() for margin in margins)
    losses = curve(products, "overhaul")
    assert 0.0 < losses[-1] < losses[0]


def test_paraphrasers_are_trained_before_the_student_and_then_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found: list[dict[str, Tensor]] = []

    def studied(strategy: Strategy, *others: Any) -> None:
        found.append({name: value.clone() for name, value in strategy.state_dict().items()})
        study(strategy, *others)
        found.append({name: value.clone() for name, value in strategy.state_dict().items()})

    monkeypatch.setattr(training, "study", studied)
    products = trained("objective=factor")
    before, after = found[-2:]
    names = [name for name in after if "paraphraser" in name]
    assert len(names) == 2 * 6  # weights and biases of three layers, for each teacher
    assert not any(torch.equal(before[name], after[name]) for name in names)
    state = products["student"].learner.strategy.state_dict()
    assert all(torch.equal(after[name], state[name]) for name in names)
    assert not any(torch.equal(after[name], state[name]) for name in state if "translator" in name)
    losses = curve(products, "factor")
    assert 0.0 < losses[-1] < losses[0]


def test_a_run_does_not_depend_on_whether_its_teachers_were_there_already() -> None:
    first = trained("objective=factor")
    shutil.rmtree(first["student"].artefact.folder)
    again = trained("objective=factor")
    assert [product.reused for product in again.values()] == [True, True, False]
    for part in ("student", "strategy"):
        before = getattr(first["student"].learner, part).state_dict()
        after = getattr(again["student"].learner, part).state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.slow
def test_two_processes_study_what_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")  # so that what is set for the processes is taken back
        monkeypatch.delenv(name)
    teacher = trained("teacher.members=[cnn_tiny]", "epochs=1", "teacher.epochs=1")["teacher/0"]
    asked = (
        f"teacher.members=[{{artefact:{teacher.artefact.folder}}}]",
        *("epochs=1", "controls=[]", "objective=factor", "objective.balance=variance"),
        *("trainer=ddp", "trainer.accelerator=cpu"),
    )
    plan = make_plan(compose(asked))
    try:
        products = Engine(plan, Store(Path("store")), Path("run"), logger=False).products()
    finally:
        torch.use_deterministic_algorithms(False)
    learned = products["student"].learner.strategy.state_dict()

    (stage,) = plan.stages
    alone = assemble(stage)
    ensemble = Ensemble(frozen(alone.strategy, [teacher.deliverable()]))
    acquaint(stage, alone, ensemble, next(iter(plan.data.val_dataloader())))
    plan.data.trainer = None
    with quiet_seed(derived_seed(stage.seed, "study")):
        study(alone.strategy, ensemble, plan.data, torch.device("cpu"))
    studied = alone.strategy.state_dict()
    names = [name for name in studied if "paraphraser" in name or "units" in name]
    assert len(names) == 8, names
    assert all(torch.equal(learned[name], studied[name]) for name in names)
    translators = [name for name in studied if "translator" in name]
    assert translators
    assert not any(torch.equal(learned[name], studied[name]) for name in translators)
