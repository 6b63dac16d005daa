"""Live teachers that answer in the fastest way that will do."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch

from ensemble_kd.teachers.ensemble import Ensemble
from ensemble_kd.teachers.frozen import Frozen
from ensemble_kd.teachers.runtimes import Allowed, Answers, choose_together
from ensemble_kd.types import Batch, Output

WORTHWHILE = 20.0
"""Seconds of answering in the plain way from which on it pays to look for a faster one."""


class Quick(Ensemble):
    """Teachers whose way of running is chosen by a short measurement on the first batch.

    Args:
        teachers: the frozen networks, in order, without taps.
        allowed: ``exact``: only ways that give the same to the last bit; ``fast``: also others,
            whose largest difference is part of what is announced.
        announce: hears in one line what was chosen, and why.
        batches: how many will be asked for. Where plain networks answer all of them in less than
            ``WORTHWHILE`` seconds nothing is measured. None measures in any case.

    Raises:
        ValueError: a teacher is tapped, whose features these ways do not give.
    """

    def __init__(
        self,
        teachers: Sequence[Frozen],
        allowed: Allowed,
        announce: Callable[[str], None],
        batches: int | None = None,
    ) -> None:
        super().__init__(teachers)
        if any(teacher.taps for teacher in teachers):
            raise ValueError("teachers must have no taps, got some whose features are compared")
        self.allowed: Allowed = allowed
        self.announce = announce
        self.batches = batches
        self._chosen: tuple[torch.device, Answers | None] | None = None

    def own(self, batch: Batch) -> tuple[Output, ...]:
        """What each network says of a batch, in its own classes."""
        device = next((p.device for t in self.teachers for p in t.network.parameters()), None)
        device = device or torch.device("cpu")
        if self._chosen is None or self._chosen[0] != device:
            self._chosen = device, self._choice(batch)
        answers = self._chosen[1]
        if answers is None:
            return super().own(batch)
        return tuple(Output(logits) for logits in answers(batch.inputs))

    def _choice(self, batch: Batch) -> Answers | None:
        """The way to ask all of them; None for the plain one."""
        if self.batches is not None:
            # Twice: the first time of all is the slowest.
            seconds = min(self._seconds(batch) for _ in range(2))
            if seconds * self.batches < WORTHWHILE:
                return None
        with torch.random.fork_rng():
            networks = [teacher.network for teacher in self.teachers]
            together = choose_together(networks, batch.inputs, self.allowed)
        self.announce(together.summary)
        return together.answers

    def _seconds(self, batch: Batch) -> float:
        start = time.perf_counter()
        for said in super().own(batch):
            said.logits.sum().item()  # waits for a device that computes by itself
        return time.perf_counter() - start
