"""Trying a stage out before anything is trained or written."""

from __future__ import annotations

import copy
import pickle
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ensemble_kd.build import build, locate
from ensemble_kd.descent import Descent
from ensemble_kd.errors import UserError
from ensemble_kd.networks.compiled import compiling
from ensemble_kd.networks.cut import resting
from ensemble_kd.objectives import Material
from ensemble_kd.stage import Stage, derived_seed
from ensemble_kd.strategies.strategy import Strategy, learning, objectives
from ensemble_kd.teachers import Ensemble, Foreign, asked
from ensemble_kd.teachers.runtimes import Unavailable
from ensemble_kd.teachers.runtimes.compiled import check_compiler
from ensemble_kd.training import Learner, frozen, on_card, quiet_seed, weightings
from ensemble_kd.types import Batch, Progress

REHEARSED = 8
"""Samples of the batch with which a stage is tried out."""

LATE = Progress(step=2**31, epoch=2**20, fraction=1.0)
"""The end of a stage, when every ramp and burn-in is over."""


def acquaint(stage: Stage, learner: Learner, teachers: Ensemble, batch: Batch) -> None:
    """Let the objectives of a stage see the features that they will compare.

    Args:
        stage: the stage.
        learner: its student and strategy; its objectives get what depends on sizes.
        teachers: the networks that teach it, trained or not yet.
        batch: any batch; only shapes matter.

    Raises:
        UserError: a layer is not there, or features cannot be compared.
    """
    student, strategy = learner.student, learner.strategy
    seed = derived_seed(stage.seed, "acquaint")
    with torch.no_grad(), quiet_seed(seed), resting(student), resting(strategy):
        try:
            strategy.acquaint(student, teachers, _few(batch))
        except (ValueError, RuntimeError) as failure:
            reason = " ".join(str(failure).split())
            raise UserError(f"stage {stage.name}: objective: {reason}") from failure


def _few(batch: Batch) -> Batch:
    few: Batch = pytree.tree_map(
        lambda part: part[:REHEARSED] if isinstance(part, Tensor) else part, batch
    )
    return few


def rehearse(
    stage: Stage,
    learner: Learner,
    teachers: Mapping[str, nn.Module],
    batch: Batch,
    classes: int,
    allow: Sequence[str] = (),
) -> bool:
    """Play one small batch through copies of everything, as at the start and as at the end.

    Args:
        stage: the stage.
        learner: its student and strategy; they are not changed.
        teachers: the networks that will teach it, by name, trained or not yet.
        batch: a training batch; a few samples of it are used.
        classes: number of classes of the data.
        allow: packages beside this project's that nodes may name.

    Returns:
        Whether the teachers were asked, all together, about a batch.

    Raises:
        UserError: whatever goes wrong, in one line that names the stage.
    """
    if stage.compiled:
        _check_compiler(stage)
    _check_processes(stage, teachers)
    few = _few(batch)
    descents: dict[str, Descent] = build(stage.optimizers, "optimizer", allow)
    learner = Learner(*copy.deepcopy((learner.student, learner.strategy)))
    student, strategy = learner.student, learner.strategy
    own = {stage.reported(name): part for name, part in strategy.predictors(student).items()}
    expected = dict.fromkeys(own, classes if stage.covered is None else len(stage.covered))
    networks = {**teachers, **own}
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, network in networks.items():
            said = _said(stage, name, network, few)
            wanted = expected.get(name, classes)
            if said.logits.shape[-1] != wanted:
                raise UserError(
                    f"{name}: expected {wanted} classes as in the data, got a network that "
                    f"answers {said.logits.shape[-1]}"
                )
        ensemble = Ensemble(frozen(strategy, copy.deepcopy(list(teachers.values()))))
        acquaint(stage, learner, ensemble, few)
        heard: set[int] = set()
        ensemble.register_forward_hook(lambda module, *_: heard.add(id(module)))
        for weighting in weightings(strategy):
            if weighting.needs_labels and batch.mask is not None:
                raise UserError(
                    f"weighting: {type(weighting).__name__} needs a label for every sample, and "
                    "some of the data has none: choose another weighting, or data.labelled=null"
                )
            if weighting.needs_accuracies:
                weighting.measure([1.0] * len(teachers))
        try:
            if stage.ensemble is not None:
                kind = locate(stage.ensemble.get("_target_"), "strategy.ensemble", allow)
                getattr(kind, "check", Ensemble.check)(few)
            _check_players(stage, strategy, student)
            material = Material(
                lambda: iter([few]),
                lambda k, said: ensemble.teachers[k].answer(said),
                whole=False,
            )
            for objective in objectives(strategy):
                objective.study(material)
            asked = _listening(strategy)
            strategy.begin(student, ensemble)
            _play(stage, learner, ensemble, few)
            _check_asked(strategy, asked)
            for player, parameters in strategy.players(student).items():
                descents.get(player, descents["default"]).start(parameters, total_steps=2)
        except UserError:
            raise
        except (ValueError, RuntimeError, TypeError, IndexError, KeyError) as failure:
            reason = " ".join(str(failure).split())
            raise UserError(f"stage {stage.name}: {reason}") from failure
    return bool(heard)


def _play(stage: Stage, learner: Learner, teachers: Ensemble, batch: Batch) -> None:
    networks = learning(learner.strategy, learner.student) if stage.compiled else []
    # Nothing is compiled here, only what a compiled network cannot do is found out.
    with compiling(networks, lambda function: function) as compiled:
        _play_twice(stage, learner, teachers, batch)
    if compiled and not any(network.calls for network in compiled):
        raise UserError(
            f"compile: expected networks that run as a whole, got some of which "
            f"{type(learner.strategy).__name__} runs the parts (stage {stage.name}): "
            "compile=false, or networks that share no layers"
        )


def _play_twice(stage: Stage, learner: Learner, teachers: Ensemble, batch: Batch) -> None:
    for progress in (Progress(0, 0, 0.0), LATE):
        for turn in learner.strategy.turns(learner.student, teachers, batch, progress):
            loss = torch.stack(list(turn.terms.values())).sum()
            if not torch.isfinite(loss):
                raise UserError(
                    f"stage {stage.name}: the loss of {turn.player!r} is {loss.item()} on the "
                    "first samples: look at the data, the teachers' weights and the objective"
                )
            loss.backward()
        for objective in objectives(learner.strategy):
            objective.settle()


def _check_processes(stage: Stage, teachers: Mapping[str, nn.Module]) -> None:
    """What is sent to processes that are started anew must be something that can be sent."""
    if "spawn" not in str(stage.trainer.get("strategy", "")):
        return
    for name, network in teachers.items():
        if isinstance(network, Foreign):
            _check_sendable(name, network, stage.trainer["strategy"])


def _check_sendable(name: str, network: Foreign, processes: Any) -> None:
    try:
        pickle.dumps(network)
    except (pickle.PicklingError, AttributeError, TypeError) as failure:
        raise UserError(
            f"{name}: it cannot be sent to the other processes of trainer.strategy={processes} "
            f"({failure}): give a function that can be imported by name, or train in one process"
        ) from failure


def _check_compiler(stage: Stage) -> None:
    try:
        check_compiler(torch.device("cuda" if on_card(stage.trainer) else "cpu"))
    except Unavailable as closed:
        raise UserError(f"compile: {closed.reason}: compile=false") from closed


def _listening(strategy: Strategy) -> set[int]:
    """Where the objectives of a copy of a strategy will leave a trace when they are asked."""
    asked: set[int] = set()
    for objective in objectives(strategy):
        objective.register_forward_hook(lambda module, *_: asked.add(id(module)))
    return asked


def _check_asked(strategy: Strategy, asked: set[int]) -> None:
    """Features that nobody compares are a mistake that would stay unseen."""
    for objective in objectives(strategy):
        if objective.student_taps() and id(objective) not in asked:
            raise UserError(
                f"objective: the features of {type(objective).__name__} "
                f"({', '.join(objective.student_taps())}) are never compared under "
                f"{type(strategy).__name__}: choose another strategy, or an objective of the logits"
            )


def _check_players(stage: Stage, strategy: Strategy, student: nn.Module) -> None:
    """With several players the module descends itself, without these services of the trainer."""
    players = strategy.players(student)
    if len(players) == 1:
        return
    for key, off in (("gradient_clip_val", None), ("accumulate_grad_batches", 1)):
        value = stage.trainer.get(key, off)
        if value not in (off, None):
            raise UserError(
                f"trainer.{key}: expected {'null' if off is None else off} for a strategy with "
                f"{len(players)} players, got {value}; optimizer.clip clips each of them"
            )


def _said(stage: Stage, name: str, network: nn.Module, batch: Batch) -> Any:
    try:
        with torch.no_grad():
            return asked(copy.deepcopy(network).train(), batch)
    except UserError:
        raise
    except Exception as failure:  # the network may be anything, in any library
        inputs = batch.inputs
        kind = f"shape {tuple(inputs.shape[1:])}" if isinstance(inputs, Tensor) else "this data"
        reason = textwrap.shorten(str(failure), 200, placeholder=" ...")
        raise UserError(f"{name}: the network fails on samples of {kind}: {reason}") from failure
