"""From a configuration to the stages of a run."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import LightningDataModule
from torch import nn

from ensemble_kd.artefact import read_artefact, snapshots_in
from ensemble_kd.build import Node, build, locate
from ensemble_kd.config import plain
from ensemble_kd.errors import UserError
from ensemble_kd.fingerprint import module_digest
from ensemble_kd.fitting import make_trainer
from ensemble_kd.rehearsal import acquaint, rehearse
from ensemble_kd.stage import Given, Stage, derived_seed, with_new_weights
from ensemble_kd.teachers import Ensemble
from ensemble_kd.training import assemble, frozen, labels_only

ALONE = "control"
"""The stage that trains the same student without teachers."""


@dataclass(frozen=True)
class Taught:
    """A teacher that is there already.

    Attributes:
        network: the teacher.
        digest: of its artefact, or of its weights when it was handed over as an object.
        folder: the artefact, when there is one.
    """

    network: nn.Module
    digest: str
    folder: Path | None = None


@dataclass(frozen=True)
class Objects:
    """What ``distill()`` was given as objects, in place of parts of the configuration."""

    student: Given | None = None
    strategy: Given | None = None
    teachers: Sequence[nn.Module] | None = None


@dataclass(frozen=True)
class Plan:
    """All that a run will do.

    Attributes:
        stages: in the order in which they are trained.
        teachers: names of the teachers, whether given or stages.
        given: teachers that are there already, by name.
        mixtures: names of predictors, by the name under which their mean is reported.
        data: the opened data.
        classes: number of classes.
        allow: packages beside this project's that nodes may name.
    """

    stages: tuple[Stage, ...]
    teachers: tuple[str, ...]
    given: Mapping[str, Taught] = field(default_factory=dict)
    mixtures: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    data: Any = None
    classes: int = 0
    allow: tuple[str, ...] = ()


def make_plan(
    config: DictConfig, data: LightningDataModule | None = None, objects: Objects | None = None
) -> Plan:
    """Check a configuration and lay out its stages; nothing is trained and nothing is written.

    Args:
        config: the composed configuration; ``data.inputs`` and ``data.classes`` are filled in.
        data: opened data instead of ``config.data``, with ``inputs``, ``classes`` and ``digest``.
        objects: student, strategy or teachers given as objects.

    Raises:
        UserError: the first thing that is wrong.
    """
    objects = objects or Objects()
    _check_settings(config)
    allow = tuple(plain(config.allow, "allow"))
    # Each group is built once by itself: a mistake is then reported under the key that was typed.
    for group in ("objective.terms", "optimizer", "trainer", "logger", "evaluation"):
        build(plain(OmegaConf.select(config, group), group), group, allow)
    make_trainer(plain(config.trainer, "trainer"), config.epochs, allow=allow)
    # A copy: what stages ask of the data is not to be seen by whoever handed it over.
    opened: Any = _open_data(config, allow) if data is None else copy.copy(data)
    opened.labelled_only = False
    _fill_in_data(config, opened)
    _check_length(opened)
    # Some weightings are made for so many classes.
    build(plain(config.weighting, "weighting"), "weighting", allow)

    if objects.student is not None:
        _like_the_student(config, objects.student)
    stages, given = _teachers(config, opened, objects, allow)
    teachers = (*(stage.name for stage in stages), *given)
    teachers = tuple(sorted(teachers, key=lambda name: int(name.partition("/")[2])))
    taught = config.strategy.get("taught", True)
    if taught and not teachers and not config.strategy.get("chain"):
        raise UserError(
            f"teacher: expected at least one network for strategy={config.strategy.name}, got none"
        )
    last = Stage(
        name="student",
        student=objects.student or plain(config.student, "student"),
        teachers=teachers if taught else (),
        strategy=objects.strategy or plain(config.strategy.turns, "strategy.turns"),
        optimizers=_optimizers(config),
        trainer=plain(config.trainer, "trainer"),
        data=opened.digest,
        labelled_only=False,
        epochs=config.epochs,
        select=config.select,
        seed=config.seed,
        ensemble=plain(config.strategy.get("ensemble"), "strategy.ensemble"),
    )
    chain = build(plain(config.strategy.get("chain"), "strategy.chain"), "strategy.chain", allow)
    stages += chain.stages(last) if chain is not None else (last,)
    mixtures = {"ensemble": teachers} if teachers else {}
    mixtures |= getattr(chain, "mixtures", dict)()
    if config.control:
        alone = plain(config.alone, "alone")
        default = {"default": last.optimizers["default"]}
        # The network that is delivered, which a chain may have wrapped, without its strategy.
        control = replace(last, name=ALONE, student=stages[-1].student, teachers=(), ensemble=None)
        stages += (replace(control, strategy=alone, optimizers=default),)
    plan = Plan(stages, teachers, given, mixtures, opened, opened.classes, allow)
    return replace(plan, stages=_rehearsed(plan))


def _check_settings(config: DictConfig) -> None:
    allow = plain(config.allow, "allow")
    if not isinstance(allow, list) or not all(isinstance(name, str) for name in allow):
        raise UserError(f"allow: expected a list of packages, got {allow!r}")
    for key in ("paths.store", "strategy.name"):
        value = plain(OmegaConf.select(config, key), key)
        if not isinstance(value, str) or not value:
            raise UserError(f"{key}: expected text, got {value!r}")
    taught = plain(config.strategy.get("taught", True), "strategy.taught")
    if not isinstance(taught, bool):
        raise UserError(f"strategy.taught: expected true or false, got {taught!r}")
    _expect_integer(config, "epochs", 1)
    _expect_integer(config, "teacher.epochs", 1)
    _expect_integer(config, "seed", 0)
    _expect_integer(config, "teacher.seed", 0)
    _expect_integer(config, "batch_size", 1)
    if config.select not in ("last", "best"):
        raise UserError(f"select: expected last or best, got {config.select!r}")
    if not isinstance(config.control, bool):
        raise UserError(f"control: expected true or false, got {config.control!r}")


def _expect_integer(config: DictConfig, key: str, least: int) -> None:
    value = plain(OmegaConf.select(config, key), key)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UserError(f"{key}: expected an integer >= {least}, got {value!r}")
    if value >= 2**31:
        raise UserError(f"{key}: expected an integer below 2^31, got {value}")


def _open_data(config: DictConfig, allow: Sequence[str]) -> Any:
    node = plain(config.data, "data")
    node = {key: value for key, value in node.items() if key not in ("inputs", "classes")}
    data = build(node, "data", allow)
    for wanted in ("inputs", "classes", "digest", "train_dataloader"):
        if not hasattr(data, wanted):
            raise UserError(f"data: expected a data module with {wanted!r}, got {data!r}")
    return data


def _check_length(data: Any) -> None:
    """Schedules and progress need to know how many batches there will be."""
    for name in ("train_dataloader", "val_dataloader"):
        try:
            batches = len(getattr(data, name)())
        except TypeError as failure:
            raise UserError(
                f"data: expected a {name} with a length, got one that has none, as those of "
                "iterable data sets: give it a length, or use a data set with samples by number"
            ) from failure
        if batches < 1:
            raise UserError(f"data: expected at least one batch of {name}, got none")


def _fill_in_data(config: DictConfig, data: Any) -> None:
    """Networks take their sizes from ``data.inputs`` and ``data.classes``: what the data says."""
    found = {"inputs": [int(size) for size in data.inputs], "classes": int(data.classes)}
    OmegaConf.set_struct(config, False)
    for key, value in found.items():
        said = plain(config.data.get(key), f"data.{key}")
        if said is not None and said != value:
            raise UserError(f"data.{key}: expected {value} as the data says, got {said}")
        config.data[key] = value
    OmegaConf.set_struct(config, True)


def _like_the_student(config: DictConfig, student: Given) -> None:
    """Have ``${student}`` in the configuration mean the network that was given as an object."""
    if student.node is not None:
        OmegaConf.set_struct(config, False)
        config.student = dict(student.node)
        OmegaConf.set_struct(config, True)
    elif "${student}" in str(OmegaConf.to_container(config.strategy, resolve=False)):
        with_new_weights(student)


def _optimizers(config: DictConfig) -> Node:
    """How each player descends: the strategy may name some, ``optimizer`` serves the rest."""
    own = plain(config.strategy.get("optimizers"), "strategy.optimizers") or {}
    return {"default": plain(config.optimizer, "optimizer"), **own}


def _teachers(
    config: DictConfig, data: Any, objects: Objects, allow: tuple[str, ...]
) -> tuple[tuple[Stage, ...], dict[str, Taught]]:
    if objects.teachers is not None:
        given = {
            f"teacher/{number}": Taught(copy.deepcopy(network), module_digest(network))
            for number, network in enumerate(objects.teachers)
        }
        return (), given
    stages: list[Stage] = []
    given = {}
    for number, node in enumerate(plain(config.teacher, "teacher")["networks"]):
        name = f"teacher/{number}"
        if "artefact" in node:
            folder = node["artefact"]
            if not isinstance(folder, str):
                raise UserError(f"teacher.members: expected a folder as artefact, got {folder!r}")
            artefact = read_artefact(Path(folder))
            given[name] = Taught(artefact.network(allow), artefact.identity, artefact.folder)
            continue
        stages.append(
            Stage(
                name=name,
                student=node,
                teachers=(),
                strategy=plain(config.alone, "alone"),
                optimizers={"default": plain(config.optimizer, "optimizer")},
                trainer=plain(config.trainer, "trainer"),
                data=data.digest,
                labelled_only=False,
                epochs=config.teacher.epochs,
                select=config.select,
                seed=derived_seed(config.teacher.seed, name),
            )
        )
    return tuple(stages), given


def _rehearsed(plan: Plan) -> tuple[Stage, ...]:
    """The stages, each tried out on a small batch, and told which samples it can use."""
    networks = {name: teacher.network for name, teacher in plan.given.items()}
    watched = _watched(plan)
    rehearsed = []
    for stage in plan.stages:
        learner = assemble(stage, plan.allow)
        plan.data.views = learner.strategy.views
        batch = next(iter(plan.data.train_dataloader()))
        taught_by = {name: networks[name] for name in stage.teachers}
        teachers = Ensemble(frozen(learner.strategy, copy.deepcopy(list(taught_by.values()))))
        acquaint(stage, learner, teachers, batch)
        rehearse(stage, learner, taught_by, batch, plan.classes, plan.allow)
        networks[stage.name] = learner.deliverable()
        rehearsed.append(
            replace(
                stage,
                labelled_only=labels_only(learner.strategy),
                views=learner.strategy.views,
                snapshots=stage.name in watched,
            )
        )
    return tuple(rehearsed)


def _watched(plan: Plan) -> set[str]:
    """The teachers whose weights after every epoch some later stage wants to see."""
    watched: set[str] = set()
    for stage in plan.stages:
        if stage.ensemble is not None:
            kind = locate(stage.ensemble.get("_target_"), "strategy.ensemble", plan.allow)
            watched |= set(stage.teachers) if getattr(kind, "needs_snapshots", False) else set()
    for name in sorted(watched & set(plan.given)):
        if not snapshots_in(plan.given[name].folder):
            raise UserError(
                f"{name}: the strategy follows a teacher through its training, and the one that "
                "was given holds no weights of its epochs: have it trained by this run"
            )
    return watched
