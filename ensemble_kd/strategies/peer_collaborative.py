"""Peer collaborative learning: an ensemble of features and moving averages teach the peers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args

import torch
from torch import nn

from ensemble_kd.networks.branched import run_branches
from ensemble_kd.networks.cut import resting
from ensemble_kd.networks.penultimate import classifier
from ensemble_kd.objectives import Term
from ensemble_kd.schedules import Schedule
from ensemble_kd.strategies.branches import Branches, Descended, prefixed
from ensemble_kd.strategies.lesson import detached
from ensemble_kd.strategies.moving_average import MovingAverage, check_decay
from ensemble_kd.strategies.strategy import Strategy
from ensemble_kd.teachers.ensemble import Ensemble
from ensemble_kd.types import Batch, Output, Progress, Turn
from ensemble_kd.weightings import Weighting

Delivered = Literal["average", "student"]
Augmentation = Literal["own", "shared"]


class PeerCollaborative(Strategy):
    """Every branch learns from a classifier of all features, and from the others' moving averages.

    Each branch sees an augmentation of its own. A linear classifier on the concatenated features of
    all branches is the peer ensemble teacher: it descends the terms that need no teacher, and
    trains the branches through their features. Each branch descends the other terms twice: under
    its detached logits (``ensemble_soft``), and under the moving averages of the other branches
    (``mean_soft``), which saw their own augmentation. Losses are summed over the branches.

    Source: PCL, Wu and Gong, Peer Collaborative Learning for Online Knowledge Distillation (arXiv
    2006.04147), with temperature 3, decay 0.999 and both soft terms ramped up over 80 of 300 epochs
    (``RampUp``, there once per epoch); no code of the authors was found. Deviations from the
    reproduction of others (shaoeric at 6afb473), which were taken for slips: its ramp divides the
    epoch by one in place of 80; its averages keep BatchNorm statistics of their own forward passes,
    where here they average those of the branches. Frozen teachers, where there are any, are heard
    beside the moving averages.

    Args:
        peers: the networks beside the student, at least one; each gives a branch. With a split they
            are like the student.
        terms: what is matched, by name.
        weighting: how much each voice counts beside the ensemble: the moving averages of the other
            branches in their order, then the teachers.
        split: path of the first module that each branch has for itself; None for networks apart.
        ramp: factor on the terms that need a teacher, as a function of the stage's progress.
        decay: share of the old value in a moving average. It should forget within a small part of
            the training: 0.999 remembers about a thousand steps.
        augmentation: whether each branch sees an augmentation of its own, or all the same.
        deliver: what is exported, and evaluated as ``student`` and ``peer/1`` and so on: moving
            averages, or the branches themselves.

    Raises:
        ValueError: an argument is out of range.
        UserError: a peer cannot be cut at the split.
    """

    def __init__(
        self,
        peers: list[nn.Module],
        terms: dict[str, Term],
        weighting: Weighting,
        split: str | None = None,
        ramp: Schedule | None = None,
        decay: float = 0.999,
        augmentation: Augmentation = "own",
        deliver: Delivered = "average",
    ) -> None:
        super().__init__()
        if augmentation not in get_args(Augmentation):
            raise ValueError(f"augmentation must be own or shared, got {augmentation!r}")
        if deliver not in get_args(Delivered):
            raise ValueError(f"deliver must be average or student, got {deliver!r}")
        check_decay(decay)
        self.branches = Branches(peers, split)
        self.descended = Descended(terms, weighting, ramp)
        self.decay = decay
        self.deliver: Delivered = deliver
        self.views = len(peers) + 1 if augmentation == "own" else 1
        self.classifier: nn.Linear | None = None
        self.average: MovingAverage | None = None

    def meet(self, student: nn.Module) -> None:
        """Make the classifier of all features, and the moving averages."""
        self.branches.check(student)
        networks = self.branches.networks(student)
        own = classifier(student)
        features = sum(classifier(network).in_features for network in networks)
        self.classifier = nn.Linear(features, own.out_features).to(own.weight)
        self.average = MovingAverage(networks, self.decay)

    def begin(self, student: nn.Module, teachers: Ensemble) -> None:
        """Start the moving averages from the weights with which the training starts."""
        self._met()[1].start(self.branches.networks(student))

    def predictors(self, student: nn.Module) -> dict[str, nn.Module]:
        """``student``, ``peer/1``, ``peer/2`` and so on: see ``deliver``."""
        if self.deliver == "average":
            return self.branches.predictors(list(self._met()[1].networks))
        return self.branches.predictors(self.branches.networks(student))

    def learners(self, student: nn.Module) -> dict[str, nn.Module]:
        """``student``, ``peer/1``, ``peer/2`` and so on: the branches, not their averages."""
        return self.branches.predictors(self.branches.networks(student))

    def deliverable(self, student: nn.Module) -> nn.Module:
        """The student's moving average, or the student."""
        return self._met()[1].networks[0] if self.deliver == "average" else student

    def turns(
        self, student: nn.Module, teachers: Ensemble, batch: Batch, progress: Progress
    ) -> Iterator[Turn]:
        """One turn: all branches step together; then the moving averages follow."""
        classify, average = self._met()
        views = self._views(batch)
        taught = teachers(batch, progress)
        heard = self.branches.run(student, views, progress)
        with torch.no_grad(), resting(average):
            means = run_branches(list(average.networks), self.branches.split, views).outputs
        ensemble = Output(classify(torch.cat(heard.features, dim=-1)))
        terms = prefixed("peer_ensemble", self.descended.own(ensemble, batch, progress))
        for number, (name, branch) in enumerate(
            zip(self.branches.names(), heard.outputs, strict=True)
        ):
            own = self.descended.own(branch, batch, progress)
            above = self.descended.taught(
                branch, [detached(ensemble)], batch, progress, weighted=False
            )
            others = [*means[:number], *means[number + 1 :], *taught]
            beside = self.descended.taught(branch, others, batch, progress)
            own |= {f"ensemble_{term}": value for term, value in above.items()}
            own |= {f"mean_{term}": value for term, value in beside.items()}
            terms |= prefixed(name, own)
        yield Turn("student", terms)
        average.follow(self.branches.networks(student), progress.step)

    def _views(self, batch: Batch) -> list[Any]:
        """The inputs of each branch, or those of all of them."""
        views = [batch.inputs, *batch.views]
        if len(views) < self.views:
            raise ValueError(
                f"the batch must hold an augmentation for each of {self.views} branches, got "
                f"{len(views)}: augmentation=shared shows all of them the same"
            )
        return views[: self.views]

    def _met(self) -> tuple[nn.Linear, MovingAverage]:
        if self.classifier is None or self.average is None:
            raise ValueError("the strategy must meet the student before it is used")
        return self.classifier, self.average
