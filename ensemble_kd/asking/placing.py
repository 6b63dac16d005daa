"""Where the teachers of a run are: with the student, on a device of their own, or elsewhere."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import DictConfig

from ensemble_kd.build import build
from ensemble_kd.cache import Float32
from ensemble_kd.config import plain
from ensemble_kd.distributed import ranks
from ensemble_kd.errors import UserError
from ensemble_kd.training import on_card

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ensemble_kd.build import Node
    from ensemble_kd.plan import Plan
    from ensemble_kd.teachers import Keeping

KEY = "teacher.device"
PROCESS = "process"
"""Teachers answer in another process, through the records of the cache."""


def expect_place(placed: Any) -> None:
    """See that ``teacher.device`` is a place that there is.

    Raises:
        UserError: it is not.
    """
    if placed is None or placed == PROCESS:
        return
    if not isinstance(placed, str) or not re.fullmatch(r"cpu|cuda(:\d{1,3})?", placed):
        raise UserError(
            f"{KEY}: expected null, process or a device such as cpu or cuda:1, got {placed!r}"
        )
    count = torch.cuda.device_count()
    if placed != "cpu" and (torch.device(placed).index or 0) >= count:
        raise UserError(f"{KEY}: expected a device of this machine, got {placed} of {count}")


def home(placed: str | None, trainer: Node) -> str:
    """The device on which teachers compute.

    Args:
        placed: ``teacher.device``.
        trainer: of the stage that hears them.
    """
    if placed is None or placed == PROCESS:
        return "cuda" if on_card(trainer) else "cpu"
    return placed


def inexact(config: DictConfig, allow: Sequence[str]) -> tuple[str, ...]:
    """Ways in which the teachers may answer that make another student."""
    kept = build(plain(config.cache, "cache"), "cache", allow).inexact()
    ways = [kept, config.teacher.runtime if config.teacher.runtime == "fast" else None]
    trainer = plain(config.trainer, "trainer")
    # On a device of another kind they round otherwise.
    kind = torch.device(home(config.teacher.device, trainer)).type
    ways += [f"teachers on {kind}" if kind != home(None, trainer) else None]
    return tuple(way for way in ways if way is not None)


def expect_placeable(plan: Plan, config: DictConfig) -> None:
    """See that the teachers of a plan can be where they are wanted.

    Raises:
        UserError: they cannot.
    """
    placed, name = plan.placed, config.strategy.name
    if placed is None:
        return
    if any(stage.teachers and not stage.hears for stage in plan.stages):
        raise UserError(
            f"{KEY}: expected null for strategy={name}, which does more with its teachers than ask "
            f"them, got {placed}"
        )
    if placed != PROCESS:
        return
    keeping: Keeping = build(plain(config.cache, "cache"), "cache", plan.allow)
    if keeping.where != "disk" or not isinstance(keeping.format, Float32):
        raise UserError(
            f"{KEY}=process: expected cache=disk with cache.format=float32, through which the "
            f"answers come, got cache.where={keeping.where}, cache.format={keeping.format.name}"
        )
    if plan.config is None:
        raise UserError(
            f"{KEY}=process: expected a run whose data, student, strategy and teachers are all "
            "named in its configuration, got some as objects, which another process cannot have"
        )
    trainer = plain(config.trainer, "trainer")
    devices = trainer.get("devices", 1)
    if ranks.size() > 1 or devices not in (1, "1", [0]):
        raise UserError(
            f"{KEY}=process: expected trainer.devices=1, got {devices}; for several processes fill "
            "the records first: python -m ensemble_kd.cache fill"
        )
