"""The parts of a configuration that are objects: each must make what it is there for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ensemble_kd.build import Node, build
from ensemble_kd.config import plain
from ensemble_kd.descent import Descent
from ensemble_kd.errors import UserError
from ensemble_kd.evaluation import Evaluation
from ensemble_kd.teachers import Keeping

MADE: Mapping[str, type] = {
    "objective.terms": object,
    "optimizer": Descent,
    "trainer": object,
    "logger": object,
    "evaluation": Evaluation,
    "cache": Keeping,
}
"""What the groups make; where it is any object, whoever uses that looks at it."""


def check_parts(config: DictConfig, allow: Sequence[str]) -> None:
    """Build each group once by itself: a mistake is then reported under the key that was typed.

    Raises:
        UserError: one cannot be built, or makes something else.
    """
    for group, kind in MADE.items():
        made = build(plain(OmegaConf.select(config, group), group), group, allow)
        if not isinstance(made, kind):
            raise UserError(f"{group}: expected {kind.__name__}, got {made!r}")


def optimizers(config: DictConfig) -> Node:
    """How each player descends: the strategy may name some, ``optimizer`` serves the rest.

    Raises:
        UserError: what the strategy names are no players with nodes.
    """
    own = plain(config.strategy.get("optimizers"), "strategy.optimizers") or {}
    if not isinstance(own, Mapping) or not all(isinstance(each, Mapping) for each in own.values()):
        raise UserError(f"strategy.optimizers: expected one for each player, got {own!r}")
    return {"default": plain(config.optimizer, "optimizer"), **own}


def ensemble(config: DictConfig) -> Node | None:
    """How the teachers of the strategy answer together; None for the usual way.

    Raises:
        UserError: it is no node.
    """
    node = plain(config.strategy.get("ensemble"), "strategy.ensemble")
    if node is not None and not isinstance(node, Mapping):
        raise UserError(f"strategy.ensemble: expected an ensemble of teachers, got {node!r}")
    return node


def chain(config: DictConfig, allow: Sequence[str]) -> Any:
    """What makes several stages of the student's; None where it has one.

    Raises:
        UserError: it cannot be built, or makes no stages.
    """
    made = build(plain(config.strategy.get("chain"), "strategy.chain"), "strategy.chain", allow)
    if made is not None and not hasattr(made, "stages"):
        raise UserError(f"strategy.chain: expected what makes stages, got {made!r}")
    return made
