"""The set-ups on CIFAR-100: each is composed, planned and trained for a step with its networks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import save_model
from torch import nn

from ensemble_kd.build import build
from ensemble_kd.config import compose
from ensemble_kd.groups import options
from ensemble_kd.paths import conf_dir
from ensemble_kd.plan import Plan, make_plan
from ensemble_kd.stage import Stage
from ensemble_kd.teachers import Ensemble, Frozen
from ensemble_kd.training import Learner, assemble, train

GROUPS = options([conf_dir()])
EXPERIMENTS = [name for name in GROUPS["experiment"] if name.startswith("cifar100")]
OF_TEXTS = {"layer_by_layer", "self_distillation"}
"""Strategies whose set-ups are on texts, see test_text_experiments.py."""
STEP = (
    "trainer=cpu",
    "+trainer.limit_train_batches=1",
    "+trainer.limit_val_batches=0",
    "epochs=1",
    "teacher.epochs=1",
    "batch_size=2",
    "controls=[]",
)
UNTAGGED = ("second-hand", "recalled", "no figure", "not verified", "nothing")


def composed(name: str, *overrides: str) -> DictConfig:
    return compose([f"experiment={name}", *overrides], with_hydra=True)


def header(name: str) -> list[str]:
    lines = (conf_dir() / "experiment" / f"{name}.yaml").read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    return lines[:first]


def choice(config: DictConfig, group: str) -> str:
    return str(config.hydra.runtime.choices[group])


@pytest.fixture(scope="module")
def chosen() -> dict[str, DictConfig]:
    return {name: composed(name) for name in EXPERIMENTS}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_header_says_how_to_run_it_and_what_was_published(name: str) -> None:
    package, command, *rest = header(name)
    assert package == "# @package _global_"
    assert re.match(rf"# python -m ensemble_kd experiment={name}: \S", command)
    assert len(command) <= 120
    said = " ".join(line.removeprefix("# ") for line in rest)
    assert said.startswith("Published: ")
    # A figure is either said not to be verified, or said to have been read where it stands.
    assert any(tag in said for tag in (*UNTAGGED, "was read", "as read", "as experiment="))


def test_every_strategy_has_one(chosen: dict[str, DictConfig]) -> None:
    of_images = set(GROUPS["strategy"]) - OF_TEXTS
    assert {choice(config, "strategy") for config in chosen.values()} == of_images
    for name in of_images:
        assert choice(chosen[f"cifar100_{name}"], "strategy") == name
    assert chosen["cifar100_dense_assistant"].strategy.dense
    variants = {c.strategy.get("variant") for c in chosen.values()}
    assert {"self", "virtual"} <= variants


def test_every_weighting_with_a_paper_has_one(chosen: dict[str, DictConfig]) -> None:
    published = {
        name for name, comment in GROUPS["weighting"].items() if re.search(r"\(.*\d{4}\)", comment)
    }
    assert published == {"entropy", "confidence", "gradient", "random", "dropped", "reinforced"}
    for name in published:
        assert choice(chosen[f"cifar100_{name}"], "weighting") == name


def test_what_all_of_them_share(chosen: dict[str, DictConfig]) -> None:
    for name, config in chosen.items():
        assert choice(config, "trainer") == "gpu", name
        assert choice(config, "optimizer") == "sgd", name
        assert config.select == "last", name
        data = OmegaConf.to_container(config.data)
        assert isinstance(data, dict)
        samples = data.get("samples", data)
        assert samples["source"]["_target_"] == "ensemble_kd.data.CIFAR100", name
        assert samples["labelled"] is None, name
        assert samples["val_share"] == 0.02, name
        assert [step["_target_"].rpartition(".")[2] for step in samples["augment"]] == [
            "Shift",
            "Flip",
        ], name


def test_no_value_is_set_that_nobody_reads(chosen: dict[str, DictConfig]) -> None:
    # Hydra takes any key, a misspelt one too.
    usual = compose([])
    strategies = {name: usual_keys(name) for name in GROUPS["strategy"]}
    matched = {choice(config, "objective") for config in chosen.values()}
    objectives = {each: set(compose([f"objective={each}"]).objective) for each in matched}
    for name, config in chosen.items():
        assert set(config) - {"hydra"} == set(usual), name
        assert set(config.teacher) == set(usual.teacher), name
        assert set(config.objective) == objectives[choice(config, "objective")], name
        assert set(config.strategy) <= strategies[choice(config, "strategy")], name


def usual_keys(strategy: str) -> set[str]:
    """The keys of a strategy's file, and those that come from elsewhere."""
    content = OmegaConf.load(conf_dir() / "strategy" / f"{strategy}.yaml")
    own = OmegaConf.select(content, "strategy") or content
    return {str(key) for key in own} | {"taught", "turns", "matched", "by_hand"}


def test_the_choices_of_an_experiment_give_way_to_those_of_the_command_line() -> None:
    config = composed("cifar100_okddip", "student=resnet20", "data=digits", "epochs=3")
    assert (choice(config, "student"), choice(config, "data")) == ("resnet20", "digits")
    assert (config.student.depth, config.epochs) == (20, 3)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_each_trains_for_a_step(name: str, cifar_root: Path) -> None:
    config = composed(name, *STEP, f"paths.data={cifar_root}")
    plan = make_plan(config)
    # The last stage that somebody teaches; where nobody does, the last.
    stage = next((s for s in reversed(plan.stages) if s.teachers), plan.stages[-1])
    learner = assemble(stage, plan.allow)
    before = [parameter.detach().clone() for parameter in learner.student.parameters()]
    trained(plan, stage, learner)
    after = list(learner.student.parameters())
    assert all(torch.isfinite(parameter).all() for parameter in after)
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))


def trained(plan: Plan, stage: Stage, learner: Learner) -> None:
    """One step of a stage under teachers as they are before their own training."""
    stages = {each.name: each for each in plan.stages}
    networks = [assemble(stages[name], plan.allow).deliverable() for name in stage.teachers]
    plan.data.labelled_only = stage.labelled_only
    plan.data.views = stage.views
    train(stage, learner, answering(stage, networks), plan.data, plan.classes, [], [], plan.allow)


def answering(stage: Stage, networks: list[nn.Module]) -> Ensemble:
    frozen = [Frozen(network) for network in networks]
    if stage.ensemble is None:
        return Ensemble(frozen)
    snapshots = []
    for number, network in enumerate(networks):
        snapshots.append([Path(f"epoch-{number}.safetensors")])
        save_model(network, str(snapshots[-1][0]))
    ensemble: Ensemble = build(stage.ensemble, "strategy.ensemble")(frozen, snapshots)
    return ensemble
