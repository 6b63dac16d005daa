"""Open questions of a configuration, settled by trials before the stages are laid out.

An option of the group ``strategy`` may leave something open, and say in a node ``strategy.settle``
who finds the answer. A plan with an open question is checked like any other. When it is carried
out, the question is settled first, by training what is needed through the stage engine and the
store; then the stages are laid out anew, with the answer in the configuration.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from omegaconf import DictConfig, OmegaConf

from ensemble_kd.build import build
from ensemble_kd.config import plain
from ensemble_kd.distributed import ranks
from ensemble_kd.errors import UserError
from ensemble_kd.files import write_json
from ensemble_kd.predict import networks_of, resting_on
from ensemble_kd.stage import Stage
from ensemble_kd.training import accuracy, on_card

if TYPE_CHECKING:
    from ensemble_kd.engine import Product
    from ensemble_kd.plan import Plan

KEY = "strategy.settle"

TRIAL = "proxy"
"""What the names of all stages of trials begin with."""

Changes = Mapping[str, Any]
"""Values of the configuration, by key: ``{"epochs": 4}``."""

LayOut = Callable[[Changes], "Plan"]
"""The plan, checked, of the run with some values changed, and without controls."""

TryOut = Callable[[Mapping[str, Changes]], dict[str, float]]
"""Trains the run with some values changed, for each name of a trial, and returns the accuracy of
each student on the validation split. The teachers are those of the run itself; there are no
controls."""


@dataclass(frozen=True)
class Settled:
    """The answer to an open question.

    Attributes:
        changes: to the configuration.
        file: name of a JSON file in the run folder.
        record: its content: how the answer was found.
        lines: for the terminal.
    """

    changes: Changes
    file: str
    record: Mapping[str, Any]
    lines: Sequence[str]


@runtime_checkable
class Question(Protocol):
    """What a node ``strategy.settle`` makes."""

    def meanwhile(self) -> Changes | None:
        """One of the possible answers, with which the run is laid out until the question is
        settled; None where nothing is open."""
        ...

    def check(self, plan: Plan, lay_out: LayOut) -> None:
        """Find what is wrong before anything is trained.

        Args:
            plan: of the run with the answer of ``meanwhile``.
            lay_out: plans the run with another one.

        Raises:
            UserError: something is.
        """
        ...

    def settle(self, plan: Plan, try_out: TryOut) -> Settled:
        """Find the answer, in the light of nothing but the training and the validation split.

        Args:
            plan: of the run with the answer of ``meanwhile``.
            try_out: carries out trials.
        """
        ...


@dataclass(frozen=True)
class Open:
    """A question that a plan leaves open.

    Attributes:
        question: who settles it.
        config: the configuration that leaves it open.
        lay_out: from a configuration without open questions to the plan of the same run.
    """

    question: Question
    config: DictConfig
    lay_out: Callable[[DictConfig], Plan]

    def trial(self, changes: Changes) -> Plan:
        """The plan of the run with some values changed, without controls."""
        return self.lay_out(changed(self.config, {**changes, "controls": []}))


def planned(
    config: DictConfig, lay_out: Callable[[DictConfig], Plan], allow: Sequence[str]
) -> Plan:
    """The plan of a configuration, which may leave a question open.

    Args:
        config: the configuration.
        lay_out: from a configuration without open questions to a plan.
        allow: packages beside this project's that nodes may name.

    Raises:
        UserError: something is wrong, whatever the answer will be or with one that may come.
    """
    question = build(plain(config.strategy.get("settle"), KEY), KEY, allow)
    if question is None:
        return lay_out(config)
    if not isinstance(question, Question):
        raise UserError(f"{KEY}: expected a question to be settled, got {question!r}")
    meanwhile = question.meanwhile()
    if meanwhile is None:
        return lay_out(config)
    left_open = Open(question, config, lay_out)
    plan = replace(lay_out(changed(config, meanwhile)), open=left_open)
    question.check(plan, left_open.trial)
    return plan


def settle(
    plan: Plan, folder: Path, carry_out: Callable[[Plan], Mapping[str, Product]]
) -> tuple[Plan, DictConfig]:
    """Settle the open question of a plan, write down how, and plan again with the answer.

    Args:
        plan: with an open question.
        folder: the run folder.
        carry_out: trains the stages of a plan, or takes them from the store.

    Returns:
        The plan without open questions, and the configuration that it was made from.

    Raises:
        UserError: a trial failed, or the record cannot be written.
        Interrupted: Ctrl-C; finished stages are in the store.
    """
    left_open = plan.open
    if left_open is None:
        raise ValueError("plan must have an open question")

    def try_out(trials: Mapping[str, Changes]) -> dict[str, float]:
        plans = {name: left_open.trial(changes) for name, changes in trials.items()}
        products = carry_out(together(plan, plans))
        students = {name: products[f"{TRIAL}/{name}/student"] for name in trials}
        return ranks.first(lambda: {name: _accuracy(plan, s) for name, s in students.items()})

    settled = left_open.question.settle(plan, try_out)
    for line in settled.lines:
        print(line, flush=True)
    ranks.first(lambda: write_json(folder / settled.file, settled.record))
    config = changed(left_open.config, {**settled.changes, KEY: None})
    return left_open.lay_out(config), config


def changed(config: DictConfig, changes: Changes) -> DictConfig:
    """A copy of a configuration with other values for some keys."""
    other = copy.deepcopy(config)
    OmegaConf.set_struct(other, False)
    for key, value in changes.items():
        OmegaConf.update(other, key, value, merge=False)
    OmegaConf.set_struct(other, True)
    return other


def together(plan: Plan, trials: Mapping[str, Plan]) -> Plan:
    """One plan with the stages of several trials, which have the teachers of a run in common.

    Args:
        plan: of the run; its teachers are trained first, if it trains them at all.
        trials: plans of the same run with other values, by name. A stage is named
            ``proxy/TRIAL/STAGE`` here.
    """
    stages = [stage for stage in plan.stages if stage.name in plan.teachers]
    for name, trial in trials.items():
        own = [stage for stage in trial.stages if stage.name not in plan.teachers]
        new = {stage.name: f"{TRIAL}/{name}/{stage.name}" for stage in own}
        stages += [_renamed(stage, new) for stage in own]
    return replace(plan, stages=tuple(stages), open=None)


def _renamed(stage: Stage, new: Mapping[str, str]) -> Stage:
    return replace(
        stage,
        name=new[stage.name],
        teachers=tuple(new.get(teacher, teacher) for teacher in stage.teachers),
        initial=None if stage.initial is None else new.get(stage.initial, stage.initial),
    )


def _accuracy(plan: Plan, student: Product) -> float:
    """Share of the validation split that a student gets right."""
    device = torch.device("cuda" if on_card(student.stage.trainer) else "cpu")
    network = student.deliverable()
    with resting_on(networks_of(network), device):
        return accuracy(network, plan.data.val_dataloader(), device)
