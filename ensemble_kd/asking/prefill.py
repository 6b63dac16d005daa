"""Asking teachers ahead of a run: what ``python -m ensemble_kd.cache fill`` does."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ensemble_kd.asking.answers import Answers
from ensemble_kd.asking.crew import Crew
from ensemble_kd.asking.placing import PROCESS
from ensemble_kd.build import build
from ensemble_kd.command_line import explain
from ensemble_kd.config import compose, install_resolvers, plain
from ensemble_kd.data import Batches
from ensemble_kd.data.orders import Place
from ensemble_kd.distributed import ranks
from ensemble_kd.engine import Engine
from ensemble_kd.errors import UserError
from ensemble_kd.gate import check_teachers
from ensemble_kd.paths import expect_writable
from ensemble_kd.plan import Plan, make_plan
from ensemble_kd.report.progress import StageProgress
from ensemble_kd.stage import Stage
from ensemble_kd.store import Store
from ensemble_kd.teachers import Ensemble, Keeping
from ensemble_kd.training import assemble, frozen
from ensemble_kd.types import Batch


def fill(overrides: Sequence[str], extra_dirs: Sequence[Path] = (), workers: int = 1) -> None:
    """Keep on disk what the teachers of a run will be asked; only teachers are trained.

    Processes that were started together share the work, as do all others, on any machine that
    reaches the store, that do the same.

    Args:
        overrides: as for a run; the group ``cache`` is ``disk`` unless they choose it.
        extra_dirs: folders with the user's own groups.
        workers: processes on this machine, > 0.

    Raises:
        UserError: something in them is wrong, nothing could be kept, or the disk is full.
        KeyboardInterrupt: Ctrl-C; what was written stays.
    """
    chosen = any(override.lstrip("+").startswith("cache=") for override in overrides)
    whole = [*overrides] if chosen else ["cache=disk", *overrides]
    with ranks.group():
        try:
            config = compose(whole, extra_dirs)
            plan = ranks.together(lambda: make_plan(config))
        except (HydraException, OmegaConfBaseException) as failure:
            raise UserError(explain(failure, extra_dirs, whole)) from failure
        if workers > 1 and ranks.size() > 1:
            raise UserError(
                f"--workers: {ranks.size()} processes were started together and are the workers, "
                f"got {workers} more of each"
            )
        _fill(plan, config, workers)


def assist(config: str, stage: str | None, threads: int, ahead: bool) -> None:
    """Help a process that fills records: a worker that was started by ``Crew``.

    Args:
        config: the configuration from which that process made its plan, as YAML.
        stage: the only one whose teachers are asked; None for all.
        threads: with how many that process computes.
        ahead: ask first about the batches that the training will want first, in their order.

    Raises:
        UserError: the disk is full.
    """
    torch.set_num_threads(threads)
    install_resolvers()
    said = OmegaConf.create(config)
    if not isinstance(said, DictConfig):
        raise UserError("expected a configuration on standard input")
    # This is that process in which the teachers answer.
    said.teacher.device = None if said.teacher.device == PROCESS else said.teacher.device
    said.cache.workers = 1
    _fill(make_plan(said), said, 1, stage, ahead)


def _fill(
    plan: Plan, config: DictConfig, workers: int, only: str | None = None, ahead: bool = False
) -> None:
    keeping: Keeping = build(plain(config.cache, "cache"), "cache", plan.allow)
    if keeping.where != "disk":
        raise UserError(f"cache: expected disk, whose records other runs find, got {keeping.where}")
    if plan.open is not None:
        raise UserError(
            f"strategy={config.strategy.name}: which networks teach is only known once the run has "
            "tried some: start the run itself, with cache=disk"
        )
    hearing = [stage for stage in plan.stages if _hears(stage) and only in (None, stage.name)]
    if not hearing:
        raise UserError(
            f"strategy={config.strategy.name}: expected a stage that asks its teachers what they "
            "say of each batch, found none"
        )
    store = Store(Path(config.paths.store))
    expect_writable(store.root, "paths.store")
    answers = Answers(plan, keeping, store.root)
    for stage in hearing:
        answers.expect_recurring(stage)
    if config.teacher.gate:
        given = {name: teacher.network for name, teacher in plan.given.items()}
        ranks.first(lambda: check_teachers(given, plan.data.val_dataloader()))
    first = replace(plan, stages=_before(hearing, plan.stages))
    trained = Engine(first, store, store.root, None, keeping).products()
    networks = {name: each.network for name, each in plan.given.items()}
    networks |= {name: product.deliverable() for name, product in trained.items()}
    digests = {name: each.digest for name, each in plan.given.items()}
    digests |= {name: product.artefact.digest for name, product in trained.items()}
    order = partial(_first_visits, plan.data) if ahead else None
    with Crew(config, workers - 1, only):
        for stage in hearing:
            plan.data.labelled_only, plan.data.views = stage.labelled_only, stage.views
            strategy = assemble(stage, plan.allow).strategy
            members = frozen(strategy, [networks[name] for name in stage.teachers])
            answers.of(stage, Ensemble(members), digests, _progress(plan, stage.name), order)
        # What teachers say of the other splits is kept where all of them are at hand.
        teachers = {name: networks[name] for name in plan.teachers if name in networks}
        if only is None and len(teachers) == len(plan.teachers):
            trainer = plain(config.trainer, "trainer")
            answers.on("val", teachers, digests, trainer, _progress(plan, "val split"))
            answers.on("test", teachers, digests, trainer, _progress(plan, "test split"))
    if only is None and ranks.is_first():
        print(f"all that the run will ask its teachers is kept: {store.root}", file=sys.stdout)


def _hears(stage: Stage) -> bool:
    return bool(stage.teachers) and stage.hears and stage.ensemble is None and stage.epochs > 0


def _before(hearing: Sequence[Stage], stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """The stages that must be done before the teachers of some can be asked, in order."""
    needed = {name for stage in hearing for name in stage.teachers}
    for stage in reversed(stages):
        if stage.name in needed:
            needed |= {
                *stage.teachers,
                stage.initial or "",
                stage.origin.name if stage.origin else "",
            }
    return tuple(stage for stage in stages if stage.name in needed)


def _progress(plan: Plan, name: str) -> StageProgress:
    names = [stage.name for stage in plan.stages]
    return StageProgress(
        names.index(name) + 1 if name in names else len(names), len(names), name, 0
    )


def _first_visits(data: Any) -> Iterator[Batch]:
    """The training batches that have each view for the first time, if their order is known."""
    loader = data.train_dataloader()
    if not isinstance(loader, Batches):
        yield from loader
        return
    for epoch in range(data.recurring("train").views):
        loader.place = partial(Place, epoch)
        yield from loader
