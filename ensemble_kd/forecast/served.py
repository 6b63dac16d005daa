"""The samples of a run: how many, how they are held, and what it takes to serve them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ensemble_kd.build import Node
from ensemble_kd.data import Batches
from ensemble_kd.data.ahead import Ahead
from ensemble_kd.forecast.asked import timed
from ensemble_kd.forecast.described import Data
from ensemble_kd.forecast.samples import in_batches_of
from ensemble_kd.forecast.spans import Timing
from ensemble_kd.forecast.stopwatch import Clock
from ensemble_kd.plan import Plan
from ensemble_kd.stage import Stage
from ensemble_kd.teachers import Keeping
from ensemble_kd.types import Batch

HELD = 1e9
"""Bytes of images that are held in memory where they could be read anew."""


class Asked(NamedTuple):
    """What a forecast shall be of, where that is not what is there.

    Attributes:
        samples: training samples; None for those that there are. Validation and test grow alike.
        held_out: of validation and of test; None for as many as the training samples say.
        seconds: for all measurements together, about.
    """

    samples: int | None = None
    held_out: int | None = None
    seconds: float = 60.0


def counted(
    plan: Plan,
    trainer: Node,
    keeping: Keeping,
    asked: Asked,
    made_up: bool,
    notes: list[str],
) -> Data:
    """The samples that a forecast is of.

    Args:
        plan: of the run.
        trainer: its node.
        keeping: whether answers are kept.
        asked: what the forecast shall be of.
        made_up: the data are noise: how they are held says nothing of the real data.
        notes: gets a sentence where the data are not held in memory.
    """
    opened = plan.data
    loader = opened.train_dataloader()
    there = opened.sizes()
    order = getattr(loader, "order", None)
    own = getattr(order, "size", there["train"])
    train = own if asked.samples is None else asked.samples
    val, test = (
        asked.held_out or max(1, round(train / own * there[name])) for name in ("val", "test")
    )
    recurring = opened.recurring("train") if keeping.where != "off" else None
    return Data(
        train,
        val,
        test,
        getattr(order, "batch_size", None) or len(next(iter(loader)).index),
        trainer.get("accumulate_grad_batches", 1),
        bool(getattr(order, "drop_last", False)),
        0 if recurring is None else recurring.views,
        _held(plan, train + val + test, made_up, notes),
        trainer.get("limit_train_batches"),
        trainer.get("limit_val_batches"),
        trainer.get("check_val_every_n_epoch") or 1,
    )


def held(plan: Plan) -> int:
    """Bytes of the samples that are in memory now."""
    inputs = _inputs(plan)
    return 0 if inputs is None else inputs.nbytes


def _inputs(plan: Plan) -> Tensor | None:
    found = getattr(getattr(plan.data.train_dataloader(), "table", None), "inputs", None)
    return found if isinstance(found, Tensor) else None


def _held(plan: Plan, samples: int, made_up: bool, notes: list[str]) -> int:
    """Bytes of so many; images in folders are read anew where they are too many."""
    inputs = _inputs(plan)
    if inputs is None:
        return 0
    size = samples * inputs[0].nbytes
    readable = hasattr(getattr(plan.data, "source", None), "keep")
    if (made_up or readable) and size > HELD:
        notes.append(
            f"data of {size / 1e9:,.0f} GB are taken to be read batch by batch, as "
            "data=image_folder does, by processes that keep up; data=arrays holds them in memory"
        )
        return 0
    return size


def served(
    plan: Plan, stage: Stage, size: int, seconds: float, clock: Clock = time.perf_counter
) -> tuple[Timing, bool]:
    """Preparing a training batch, and whether other processes do it.

    Args:
        plan: of the run.
        stage: that sees the batches.
        size: samples of a batch.
        seconds: for the timings, about.
        clock: in seconds.
    """
    data = plan.data
    data.labelled_only, data.views = stage.labelled_only, stage.views
    loader = data.train_dataloader()
    chosen = sorted({max(1, size // 4), size}) if isinstance(loader, Batches) else [size]
    going = {each: _endless(in_batches_of(loader, each)) for each in chosen}
    found = timed({"": lambda each: next(going[each])}, chosen, seconds, torch.device("cpu"), clock)
    return found[""], isinstance(getattr(loader, "fetch", None), Ahead)


def _endless(loader: Any) -> Iterator[Batch]:
    while True:
        yield from loader
