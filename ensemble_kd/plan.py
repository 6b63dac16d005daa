"""From a configuration to the stages of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import LightningDataModule

from ensemble_kd.artefact import snapshots_in
from ensemble_kd.asking.placing import expect_placeable, inexact
from ensemble_kd.build import build, locate
from ensemble_kd.config import control_nodes, plain
from ensemble_kd.controls import Ground, control_stages
from ensemble_kd.data import seen_by
from ensemble_kd.errors import UserError
from ensemble_kd.fitting import make_trainer
from ensemble_kd.opening import expect_labels, open_data
from ensemble_kd.origin import open_origin, start, starting_from
from ensemble_kd.parts import chain, check_parts, ensemble, optimizers
from ensemble_kd.rehearsal import rehearse
from ensemble_kd.settings import check_settings
from ensemble_kd.settling import Open, planned
from ensemble_kd.stage import Given, Stage, derived_seed, with_new_weights
from ensemble_kd.taught import Taught, classes_apart, is_source, open_teacher
from ensemble_kd.teachers import translated
from ensemble_kd.teachers.sources.callable import Teacher, given_as_object
from ensemble_kd.training import assemble, labels_only

Runtime = Literal["plain", "auto", "exact", "fast"]
"""How live teachers may be run: as they are, or in the way that measuring shows to be fastest, of
those that are exact (``auto``: where that pays), or of all that are near enough."""


@dataclass(frozen=True)
class Objects:
    """What ``distill()`` was given as objects, in place of parts of the configuration."""

    student: Given | None = None
    strategy: Given | None = None
    teachers: Sequence[Teacher] | None = None


@dataclass(frozen=True)
class Plan:
    """All that a run will do.

    Attributes:
        stages: in the order in which they are trained.
        teachers: names of the teachers, whether given or stages.
        given: teachers that are there already, by name.
        origins: networks from whose layers a student starts and who need not teach, by name.
        mixtures: names of predictors, by the name under which their mean is reported.
        data: the opened data.
        classes: number of classes.
        allow: packages beside this project's that nodes may name.
        runtime: how live teachers may be run.
        placed: where the teachers are: with the student (None), on a device or in a ``process``.
        config: from which the plan was made; None where that does not say all, for some parts were
            given as objects.
        open: a question that has to be settled before anything else is done; until then the stages
            are those of one of the possible answers.
    """

    stages: tuple[Stage, ...]
    teachers: tuple[str, ...]
    given: Mapping[str, Taught] = field(default_factory=dict)
    origins: Mapping[str, Taught] = field(default_factory=dict)
    mixtures: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    data: Any = None
    classes: int = 0
    allow: tuple[str, ...] = ()
    runtime: Runtime = "plain"
    placed: str | None = None
    config: DictConfig | None = None
    open: Open | None = None


@dataclass(frozen=True)
class Basis:
    """What a run has before its student is laid out.

    Attributes:
        data: the opened data.
        trained: the stages of the teachers that this run trains.
        given: teachers that are there already, by name.
        objects: what was given as objects.
        allow: packages beside this project's that nodes may name.
        named: whether the configuration names all of this.
    """

    data: Any
    trained: tuple[Stage, ...]
    given: Mapping[str, Taught]
    objects: Objects
    allow: tuple[str, ...]
    named: bool


def make_plan(
    config: DictConfig, data: LightningDataModule | None = None, objects: Objects | None = None
) -> Plan:
    """Check a configuration and lay out its stages; nothing is trained and nothing is written.

    Where the strategy has an open question, what depends on the answer is checked for each that may
    come.

    Args:
        config: the composed configuration; ``data.inputs`` and ``data.classes`` are filled in.
        data: opened data instead of ``config.data``.
        objects: student, strategy or teachers given as objects.

    Raises:
        UserError: the first thing that is wrong.
    """
    objects = objects or Objects()
    check_settings(config)
    allow = tuple(plain(config.allow, "allow"))
    check_parts(config, allow)
    make_trainer(plain(config.trainer, "trainer"), config.epochs, allow=allow)
    opened = open_data(config, data, allow)
    if config.select == "best":
        expect_labels(opened, "select=best")
    # Some weightings are made for so many classes.
    build(plain(config.weighting, "weighting"), "weighting", allow)

    if objects.student is not None:
        _like_the_student(config, objects.student)
    named = data is None and objects == Objects()
    basis = Basis(opened, *_teachers(config, opened, objects, allow), objects, allow, named)
    return planned(config, lambda chosen: _laid_out(chosen, basis), allow)


def _laid_out(config: DictConfig, basis: Basis) -> Plan:
    """The plan of a configuration whose data and teachers are there."""
    opened, trained, given, objects = basis.data, basis.trained, basis.given, basis.objects
    allow = basis.allow
    teachers = (*(stage.name for stage in trained), *given)
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
        optimizers=optimizers(config),
        trainer=plain(config.trainer, "trainer"),
        data=opened.digest,
        labelled_only=False,
        epochs=config.epochs,
        select=config.select,
        seed=config.seed,
        ensemble=ensemble(config),
        inexact=inexact(config, allow),
        compiled=config.compile,
    )
    several = chain(config, allow)
    origin, origins = open_origin(plain(config.initial, "initial"), teachers, opened, allow)
    made = several.stages(last) if several is not None else (last,)
    made = tuple(starting_from(origin, stage, last) for stage in made)
    if origin is not None and not any(stage.origin for stage in made):
        raise UserError(
            f"initial: strategy={config.strategy.name} makes another network of the student, which "
            "cannot start from layers: choose another strategy"
        )
    mixtures = {"ensemble": teachers} if teachers else {}
    mixtures |= getattr(several, "mixtures", dict)()
    alone = replace(
        last,
        # The network that is delivered, which a chain may have wrapped, without its strategy.
        # It starts where the student starts: what is judged is what the teachers add to that.
        student=made[-1].student,
        origin=next((stage.origin for stage in made if stage.origin), None),
        teachers=(),
        strategy=plain(config.alone, "alone"),
        optimizers={"default": last.optimizers["default"]},
        ensemble=None,
    )
    ground = Ground(alone, teachers, trained, opened.classes)
    stages = (*trained, *made, *control_stages(control_nodes(config), ground, allow))
    runtime = config.teacher.runtime
    plan = Plan(stages, teachers, given, origins, mixtures, opened, opened.classes, allow, runtime)
    plan = replace(plan, placed=config.teacher.device, config=config if basis.named else None)
    plan = replace(plan, stages=_rehearsed(plan))
    expect_placeable(plan, config)
    return plan


def _like_the_student(config: DictConfig, student: Given) -> None:
    """Have ``${student}`` in the configuration mean the network that was given as an object."""
    if student.node is not None:
        OmegaConf.set_struct(config, False)
        config.student = dict(student.node)
        OmegaConf.set_struct(config, True)
    elif "${student}" in str(OmegaConf.to_container(config.strategy, resolve=False)):
        with_new_weights(student)


def _teachers(
    config: DictConfig, data: Any, objects: Objects, allow: tuple[str, ...]
) -> tuple[tuple[Stage, ...], dict[str, Taught]]:
    own = plain(config.strategy.get("teacher_turns"), "strategy.teacher_turns")
    nodes = plain(config.teacher, "teacher").get("networks") if objects.teachers is None else []
    if not isinstance(nodes, list):
        raise UserError(f"teacher.networks: expected a list of networks, got {nodes!r}")
    there = [is_source(node, "teacher.members", allow) for node in nodes]
    if own and (objects.teachers is not None or any(there)):
        raise UserError(
            f"teacher: strategy={config.strategy.name} trains its teachers in a way of its own, "
            "and got one that is trained already"
        )
    if objects.teachers is not None:
        loaded = enumerate(map(given_as_object, objects.teachers))
        return (), {f"teacher/{k}": Taught(each.network, each.digest) for k, each in loaded}
    stages: list[Stage] = []
    given = {}
    learning = own or plain(config.alone, "alone")
    for number, (node, is_there) in enumerate(zip(nodes, there, strict=True)):
        name = f"teacher/{number}"
        node, classes = classes_apart(node, data, name)
        if is_there:
            given[name] = open_teacher(node, name, data, classes, allow)
            continue
        if classes is not None:
            node = {**node, "classes": len(classes)}
        stages.append(
            Stage(
                name=name,
                student=node,
                teachers=(),
                strategy=learning,
                optimizers={"default": plain(config.optimizer, "optimizer")},
                trainer=plain(config.trainer, "trainer"),
                data=data.digest,
                labelled_only=False,
                epochs=config.teacher.epochs,
                select=config.select,
                seed=derived_seed(config.teacher.seed, name),
                covered=classes,
                compiled=config.compile,
            )
        )
    return tuple(stages), given


def _rehearsed(plan: Plan) -> tuple[Stage, ...]:
    """The stages, each tried out on a small batch, and told which samples it can use."""
    networks = {name: teacher.network for name, teacher in plan.given.items()}
    origins = {name: each.network for name, each in plan.origins.items()}
    watched = _watched(plan)
    rehearsed = []
    for stage in plan.stages:
        learner = assemble(stage, plan.allow)
        if stage.origin is not None:
            start(learner.student, stage.origin, networks | origins, stage.name)
        plan.data.views = learner.strategy.views
        batch = next(iter(seen_by(stage.covered, plan.data, plan.classes).train_dataloader()))
        taught_by = {name: networks[name] for name in stage.teachers}
        hears = rehearse(stage, learner, taught_by, batch, plan.classes, plan.allow)
        networks[stage.name] = translated(learner.deliverable(), stage.covered, plan.classes)
        rehearsed.append(
            replace(
                stage,
                labelled_only=labels_only(learner.strategy),
                views=learner.strategy.views,
                hears=hears,
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
