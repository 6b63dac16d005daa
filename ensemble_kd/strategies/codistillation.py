"""Codistillation: replicas learn from stale copies of each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ensemble_kd.data.counter import absorb, derive, integers, words
from ensemble_kd.objectives import Term
from ensemble_kd.strategies.branches import Branches, Descended, prefixed
from ensemble_kd.strategies.moving_average import MovingAverage
from ensemble_kd.strategies.samples import chosen
from ensemble_kd.strategies.strategy import Strategy
from ensemble_kd.teachers.ensemble import Ensemble
from ensemble_kd.types import Batch, Output, Progress, Turn
from ensemble_kd.weightings import Weighting

Partition = Literal["disjoint", "same"]

FEWEST = 2
"""Samples of a replica's share of a batch; BatchNorm cannot normalise one."""


class Codistillation(Strategy):
    """Each replica descends the terms under copies of the others, as they were some steps ago.

    Until the burn-in is over, each replica descends only the terms that need no teacher. Then all
    replicas are copied, weights and BatchNorm statistics, and copied again every few steps; in
    between, the copies are what teaches. They are in eval mode, are never trained, and are part of
    the state. All replicas live in this process and step together.

    Source: Anil et al., Large Scale Distributed Neural Network Training through Online Distillation
    (arXiv 1804.03235), algorithm 1 with the exchange of checkpoints of section 2.1; no code was
    published. The paper's second term, the cross-entropy between the mean of the others'
    probabilities and the own ones, has the gradient of ``Soft`` at temperature one with uniform
    weights, merged by ``probabilities`` or by ``losses``. Frozen teachers, where there are any, are
    heard beside the copies, after the burn-in.

    Args:
        peers: the replicas beside the student; at least one; architectures may differ.
        terms: what is matched, by name.
        weighting: how much each voice counts: the copies of the others in their order, then the
            teachers.
        burn_in: optimiser steps before the replicas are copied for the first time.
        exchange: optimiser steps from one copying to the next; with 1 a copy is never stale.
        partition: ``disjoint`` gives each sample to one replica for good, by a hash of its index,
            so that the replicas share a batch among them; ``same`` shows every sample to all. In a
            batch that leaves a replica fewer than two samples it has no loss.
        seed: of the partition.

    Raises:
        ValueError: an argument is out of range, or no term could be descended in the burn-in.
    """

    def __init__(
        self,
        peers: list[nn.Module],
        terms: dict[str, Term],
        weighting: Weighting,
        burn_in: int = 100,
        exchange: int = 50,
        partition: Partition = "disjoint",
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("burn_in", burn_in, 0),
            ("exchange", exchange, 1),
        ):
            if value < least:
                raise ValueError(f"{name} must be an integer >= {least}, got {value}")
        if partition not in get_args(Partition):
            raise ValueError(f"partition must be disjoint or same, got {partition!r}")
        self.branches = Branches(peers)
        self.descended = Descended(terms, weighting)
        if burn_in > 0 and not self.descended.own_names:
            raise ValueError(
                f"burn_in must be 0 when no term does without a teacher, got {burn_in}"
            )
        self.burn_in = burn_in
        self.exchange = exchange
        self.partition: Partition = partition
        self.seed = derive(seed, "partition")
        self.copies: MovingAverage | None = None
        self._copied_at = -1

    def meet(self, student: nn.Module) -> None:
        """Make room for the copies."""
        self.copies = MovingAverage(self.branches.networks(student))

    def acquaint(self, student: nn.Module, teachers: Ensemble, batch: Batch) -> None:
        """Let the objectives of each replica see its features and those of the other copies."""
        lesson = self.descended.lesson
        if lesson.taps():
            taught = teachers(batch, Progress(0, 0, 0.0))
            networks = self.branches.networks(student)
            for number, name in enumerate(self.branches.names()):
                voices = (*self._heard(batch, number, len(taught)), *taught)
                lesson.meet(name, lesson.hear(networks[number], batch), voices)

    def predictors(self, student: nn.Module) -> dict[str, nn.Module]:
        """``student``, ``peer/1``, ``peer/2`` and so on: the replicas, not their copies."""
        return self.branches.predictors(self.branches.networks(student))

    def turns(
        self, student: nn.Module, teachers: Ensemble, batch: Batch, progress: Progress
    ) -> Iterator[Turn]:
        """One turn: all replicas step together, each on its share of the batch."""
        if self._exchanges(progress.step):
            self._copied_at = progress.step
            self._copies().start(self.branches.networks(student))
        started = progress.step >= self.burn_in
        taught = teachers(batch, progress) if started else ()
        terms: dict[str, Tensor] = {}
        replicas = zip(self.branches.names(), self.branches.networks(student), strict=True)
        for number, (name, network) in enumerate(replicas):
            rows = self._share(batch, number)
            if rows is not None and len(rows) < FEWEST:
                terms |= prefixed(name, self._nothing(network, started))
                continue
            own = batch if rows is None else chosen(batch, rows)
            learned = self.descended.lesson.hear(network, own)
            losses = self.descended.own(learned, own, progress)
            if started:
                beside = taught if rows is None else tuple(chosen(said, rows) for said in taught)
                voices = (*self._heard(own, number, len(taught)), *beside)
                losses |= self.descended.taught(learned, voices, own, progress, of=name)
            terms |= prefixed(name, losses)
        yield Turn("student", terms)

    def _exchanges(self, step: int) -> bool:
        """Whether the replicas are copied now: before a step, and not between its batches."""
        since = step - self.burn_in
        return step != self._copied_at and since >= 0 and since % self.exchange == 0

    def _share(self, batch: Batch, number: int) -> Tensor | None:
        """The samples of a batch that belong to a replica, None for all of them."""
        if self.partition == "same":
            return None
        state = absorb(words(self.seed), words(batch.index))
        owner = integers(state, 1, len(self.branches.peers) + 1).flatten()
        return (owner == number).nonzero().flatten().to(batch.index.device)

    def _heard(self, batch: Batch, number: int, teachers: int) -> list[Output]:
        """What the copies of all replicas but one say, with the features that are compared."""
        voices = len(self.branches.peers) + teachers
        # The trainer puts all modules of a strategy into training mode, the copies among them.
        copies = self._copies().networks.eval()
        with torch.no_grad():
            return [
                self.descended.lesson.hear_peer(network, batch, voices)
                for other, network in enumerate(copies)
                if other != number
            ]

    def _nothing(self, network: nn.Module, started: bool) -> dict[str, Tensor]:
        """Zeros with a graph, in place of the losses of a replica."""
        zero = sum((p.sum() for p in network.parameters()), torch.zeros(())) * 0.0
        taught = self.descended.taught_names if started else []
        return dict.fromkeys([*self.descended.own_names, *taught], zero)

    def _copies(self) -> MovingAverage:
        if self.copies is None:
            raise ValueError("the strategy must meet the student before it is used")
        return self.copies
