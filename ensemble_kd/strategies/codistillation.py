"""Codistillation: replicas learn from stale copies of each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ensemble_kd.data.counter import absorb, derive, integers, words
from ensemble_kd.objectives import Term
from ensemble_kd.strategies.branches import Branches, Descended, prefixed
from ensemble_kd.strategies.elsewhere import Elsewhere, medium
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
    the state.

    All replicas live in this process and step together, unless ``across`` says how others are
    reached: then this process trains one of them, and copies of the others have the places of their
    networks. As long as a copy is missing, it goes on as in the burn-in.

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
        across: how replicas that are trained apart reach each other: an absolute path of a folder
            that all of them see; ``ranks``, as the processes that torchrun or srun started; None
            where all are trained here.
        replica: with a folder, the number of the one that is trained here: the student is 0, the
            peers follow.
        patience: with a folder, seconds to wait at an exchange for who is behind.

    Raises:
        ValueError: an argument is out of range, or no term could be descended in the burn-in.
        UserError: the replicas cannot be reached in this way.
    """

    copied_at: Tensor

    def __init__(
        self,
        peers: list[nn.Module],
        terms: dict[str, Term],
        weighting: Weighting,
        burn_in: int = 100,
        exchange: int = 50,
        partition: Partition = "disjoint",
        seed: int = 0,
        across: str | None = None,
        replica: int = 0,
        patience: float = 600.0,
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
        reached = medium(across, replica, patience, len(peers) + 1)
        self.elsewhere = None if reached is None else Elsewhere(reached, len(peers) + 1)
        self.apart = reached is not None and reached.shares_a_run
        self.copies: MovingAverage | None = None
        self.register_buffer("copied_at", torch.tensor(-1))
        self._copied_at = -1
        self._layout = {
            "seed": seed,
            "burn_in": burn_in,
            "exchange": exchange,
            "partition": partition,
        }

    def meet(self, student: nn.Module) -> None:
        """Make room for the copies, and let nothing train those that have a network for a place."""
        networks = self.branches.networks(student)
        if self.elsewhere is None:
            self.copies = MovingAverage(networks)
            return
        for number, network in enumerate(networks):
            if number != self.elsewhere.own:
                network.requires_grad_(False)

    def acquaint(self, student: nn.Module, teachers: Ensemble, batch: Batch) -> None:
        """Let the objectives of each replica see its features and those of the other copies."""
        lesson = self.descended.lesson
        if lesson.taps():
            taught = teachers(batch, Progress(0, 0, 0.0))
            networks = self.branches.networks(student)
            for number, name in enumerate(self.branches.names()):
                voices = (*self._heard(student, batch, number, len(taught)), *taught)
                lesson.meet(name, lesson.hear(networks[number], batch), voices)
        if self.elsewhere is not None:
            own = self.branches.names()[self.elsewhere.own]
            named = {"student": lesson.terms, **dict(lesson.of_peers.items())}
            for name in named if own in named else ():
                named[name].requires_grad_(name == own)

    def enter(self, student: nn.Module, step: int, data: str) -> None:
        """Find the replicas that are trained elsewhere."""
        self._copied_at = int(self.copied_at)
        if self.elsewhere is not None:
            layout = {**self._layout, "data": data}
            self.elsewhere.enter(self.branches.networks(student), layout, step)

    def leave(self, student: nn.Module, step: int) -> None:
        """Publish the last weights for replicas that are trained elsewhere."""
        if self.elsewhere is not None:
            self.elsewhere.leave(self.branches.networks(student), step)

    def recorded(self) -> dict[str, Any]:
        """What was exchanged with replicas elsewhere, and how old the copies were."""
        return {} if self.elsewhere is None else {"exchange": self.elsewhere.told()}

    def predictors(self, student: nn.Module) -> dict[str, nn.Module]:
        """``student``, ``peer/1``, ``peer/2`` and so on: the replicas, not their copies.

        Of replicas that are trained by other runs nothing is reported: ``student`` is the own one.
        """
        if self._is_one_of_several_runs():
            return {"student": self.deliverable(student)}
        return self.branches.predictors(self.branches.networks(student))

    def deliverable(self, student: nn.Module) -> nn.Module:
        """The student; of a replica that is trained by a run of its own, that one."""
        if self.elsewhere is None or not self._is_one_of_several_runs():
            return student
        return self.branches.networks(student)[self.elsewhere.own]

    def turns(
        self, student: nn.Module, teachers: Ensemble, batch: Batch, progress: Progress
    ) -> Iterator[Turn]:
        """One turn: all replicas of this process step together, each on its share of the batch."""
        moved = self._exchanged(student, progress.step) if self._exchanges(progress.step) else 0
        started = progress.step >= self.burn_in and self._complete()
        taught = teachers(batch, progress) if started else ()
        terms: dict[str, Tensor] = {}
        replicas = list(zip(self.branches.names(), self.branches.networks(student), strict=True))
        for number in self._trained():
            name, network = replicas[number]
            losses = self._losses(number, name, student, taught, started, batch, progress)
            # Trained by itself, it is the one whom the curves are about.
            terms |= prefixed(name if self.elsewhere is None else "student", losses)
            if not terms:
                terms = self._nothing(network, started=True)
        if self.elsewhere is None:
            yield Turn("student", terms)
        else:
            bytes_moved = torch.tensor(float(moved), device=batch.index.device)
            yield Turn("student", terms, {"exchanged_bytes": bytes_moved})

    def _losses(
        self,
        number: int,
        name: str,
        student: nn.Module,
        taught: tuple[Output, ...],
        started: bool,
        batch: Batch,
        progress: Progress,
    ) -> dict[str, Tensor]:
        """What one replica descends, on its share of a batch."""
        network = self.branches.networks(student)[number]
        rows = self._share(batch, number)
        if rows is not None and len(rows) < FEWEST:
            return self._nothing(network, started)
        own = batch if rows is None else chosen(batch, rows)
        learned = self.descended.lesson.hear(network, own)
        losses = self.descended.own(learned, own, progress)
        if started:
            beside = taught if rows is None else tuple(chosen(said, rows) for said in taught)
            voices = (*self._heard(student, own, number, len(taught)), *beside)
            losses |= self.descended.taught(learned, voices, own, progress, of=name)
        return losses

    def _exchanges(self, step: int) -> bool:
        """Whether the replicas are copied now: before a step, and not between its batches."""
        if self.elsewhere is not None and not self.elsewhere.entered:
            return False  # only tried out
        since = step - self.burn_in
        return step != self._copied_at and since >= 0 and since % self.exchange == 0

    def _exchanged(self, student: nn.Module, step: int) -> int:
        """Copy the replicas; returns the bytes that moved for it."""
        self._copied_at = step
        self.copied_at.fill_(step)
        networks = self.branches.networks(student)
        if self.elsewhere is not None:
            return self.elsewhere.swap(networks, step)
        self._copies().start(networks)
        return 0

    def _complete(self) -> bool:
        """Whether there are copies of all others."""
        return self.elsewhere is None or self.elsewhere.complete()

    def _trained(self) -> list[int]:
        """The numbers of the replicas that this process trains."""
        if self.elsewhere is not None:
            return [self.elsewhere.own]
        return list(range(len(self.branches.peers) + 1))

    def _is_one_of_several_runs(self) -> bool:
        return self.elsewhere is not None and not self.elsewhere.shares_a_run

    def _share(self, batch: Batch, number: int) -> Tensor | None:
        """The samples of a batch that belong to a replica, None for all of them."""
        if self.partition == "same":
            return None
        state = absorb(words(self.seed), words(batch.index))
        owner = integers(state, 1, len(self.branches.peers) + 1).flatten()
        return (owner == number).nonzero().flatten().to(batch.index.device)

    def _heard(self, student: nn.Module, batch: Batch, number: int, teachers: int) -> list[Output]:
        """What the copies of all replicas but one say, with the features that are compared."""
        voices = len(self.branches.peers) + teachers
        copies = self.branches.networks(student)
        if self.elsewhere is None:
            copies = list(self._copies().networks)
        with torch.no_grad():
            return [
                # The trainer puts all modules into training mode, the copies among them.
                self.descended.lesson.hear_peer(network.eval(), batch, voices)
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
