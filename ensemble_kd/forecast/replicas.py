"""Codistillation whose replicas are trained apart: measured together, and shared out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from torch import nn

from ensemble_kd.costs import size
from ensemble_kd.forecast import sizes
from ensemble_kd.forecast.described import Data
from ensemble_kd.forecast.learners import Learned
from ensemble_kd.forecast.spans import Line
from ensemble_kd.stage import Given, Stage
from ensemble_kd.strategies import Codistillation
from ensemble_kd.training import assemble


def together(stage: Stage, allow: Sequence[str]) -> tuple[Stage, int]:
    """A stage whose replicas are all trained in this process, and how many are trained apart."""
    strategy = assemble(stage, allow).strategy
    apart = isinstance(strategy, Codistillation) and strategy.elsewhere is not None
    if not apart or isinstance(stage.strategy, Given):
        return stage, 1
    there = replace(stage, strategy={**stage.strategy, "across": None})
    return there, len(cast(Codistillation, strategy).branches.peers) + 1


def one_of(found: Learned, replicas: int) -> Learned:
    """What one of several replicas takes that were measured together: a share of all they do."""
    if replicas == 1:
        return found
    share = 1 / replicas
    return found._replace(
        step=found.step.times(share),
        validation=found.validation.times(share),
        gradients=round(share * found.gradients),
        state=round(share * found.state),
        working=Line(share * found.working.fixed, share * found.working.each),
    )


def between(stage: Stage, strategy: nn.Module, data: Data) -> int:
    """Bytes that replicas that are trained apart receive in all; none where they are not.

    Args:
        stage: that trains them.
        strategy: of the stage.
        data: of the run.
    """
    if not isinstance(strategy, Codistillation) or strategy.elsewhere is None:
        return 0
    batches = sizes.batches(data.train, data.batch_size, 1, data.accumulated, data.drop_last)
    steps = stage.epochs * sizes.steps(batches, data.accumulated)
    replicas = len(strategy.branches.peers) + 1
    weights = max(map(size, strategy.branches.peers))
    return sizes.exchanged(weights, replicas, steps, strategy.burn_in, strategy.exchange)
