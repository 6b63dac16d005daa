"""The set-ups on texts: each is composed, planned and trained for a step, every stage of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from ensemble_kd.config import compose
from ensemble_kd.engine import Engine
from ensemble_kd.groups import options
from ensemble_kd.networks.prepared import inside
from ensemble_kd.paths import conf_dir
from ensemble_kd.plan import make_plan
from ensemble_kd.store import Store
from ensemble_kd.training import assemble

GROUPS = options([conf_dir()])
EXPERIMENTS = [name for name in GROUPS["experiment"] if name.startswith(("sst2", "wnut17"))]
STEP = (
    "trainer=cpu",
    "+trainer.limit_train_batches=2",  # the first has the learning rate zero
    "+trainer.limit_val_batches=0",
    "epochs=1",
    "teacher.epochs=1",
    "batch_size=4",
    "logger=none",
)
UNTAGGED = ("second-hand", "recalled", "no figure", "not verified", "nothing")


def composed(name: str, *overrides: str) -> DictConfig:
    return compose([f"experiment={name}", *overrides], with_hydra=True)


def small(name: str, root: Path) -> list[str]:
    """Overrides that make an experiment small enough for the tiny files."""
    samples = "data.samples" if "samples" in composed(name).data else "data"
    sizes = {"source.limit": "null", "tokenizer.size": 60, "length": 12, "labelled": 30}
    return [
        *STEP,
        *(f"{samples}.{key}={value}" for key, value in sizes.items()),
        f"paths.data={root}",
    ]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_header_says_how_to_run_it_and_what_was_published(name: str) -> None:
    lines = (conf_dir() / "experiment" / f"{name}.yaml").read_text().splitlines()
    end = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    package, command, *rest = lines[:end]
    assert package == "# @package _global_"
    assert re.match(rf"# python -m ensemble_kd experiment={name}\b[^:]*: \S", command)
    assert len(command) <= 120
    said = " ".join(line.removeprefix("# ") for line in rest)
    assert said.startswith("Published: ")
    # A figure is either said not to be verified, or said to have been read where it stands.
    assert any(tag in said for tag in (*UNTAGGED, "as read"))


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name != "sst2_tokenizers"])
def test_each_trains_for_a_step(name: str, text_root: Path) -> None:
    plan = make_plan(composed(name, *small(name, text_root)))
    products = Engine(plan, Store(Path("store")), Path("run"), logger=False).products()
    assert list(products) == [stage.name for stage in plan.stages]
    for stage in plan.stages:
        before = dict(assemble(stage, plan.allow).deliverable().named_parameters())
        after = dict(products[stage.name].learner.deliverable().named_parameters())
        assert all(torch.isfinite(parameter).all() for parameter in after.values()), stage.name
        moved = [key for key, value in before.items() if not torch.equal(value, after[key])]
        assert moved, stage.name


def test_no_value_is_set_that_nobody_reads() -> None:
    # Hydra takes any key, a misspelt one too.
    usual = compose([])
    for name in EXPERIMENTS:
        config = composed(name)
        chosen = config.hydra.runtime.choices
        objective = compose([f"objective={chosen.objective}"]).objective
        assert set(config) - {"hydra"} == set(usual), name
        assert set(config.teacher) == set(usual.teacher), name
        assert set(config.objective) == set(objective), name
        strategy = OmegaConf.load(conf_dir() / "strategy" / f"{chosen.strategy}.yaml")
        assert set(config.strategy) <= set(strategy), name


def test_teachers_with_tokenizers_of_their_own_are_prepared_as_the_header_says(
    text_root: Path, command: Callable[..., int]
) -> None:
    lines = (conf_dir() / "experiment" / "sst2_tokenizers.yaml").read_text().splitlines()
    commands = [line for line in lines if "experiment=sst2_prepared" in line]
    assert len(commands) == 2
    quick = [*small("sst2_prepared", text_root), "report.onnx=false", "report.plots=false"]
    quick = [override for override in quick if not override.startswith("data.tokenizer")]
    for line in commands:
        assert command(*line.removeprefix("# python -m ensemble_kd ").split(), *quick) == 0
    plan = make_plan(composed("sst2_tokenizers", *small("sst2_tokenizers", text_root)))
    products = Engine(plan, Store(Path("store")), Path("run"), logger=False).products()
    vocabularies = {
        getattr(inside(teacher.network), "vocabulary", None) for teacher in plan.given.values()
    }
    assert len({plan.data.vocabulary, *vocabularies}) == 3
    assert list(products) == ["teacher/0", "student", "control/no_teacher"]


def test_the_strategies_for_texts_have_one() -> None:
    chosen = {str(composed(name).hydra.runtime.choices.strategy) for name in EXPERIMENTS}
    assert {"layer_by_layer", "self_distillation"} <= chosen
