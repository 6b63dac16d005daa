"""In which order the rows of a data set are seen: pure functions of seed, epoch and process."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ensemble_kd.data.counter import absorb, words


class Place(NamedTuple):
    """Who asks, and when.

    Attributes:
        epoch: epochs finished before this one.
        rank: number of the process.
        world: number of processes.
        accumulated: batches of an optimiser step, on each process.
    """

    epoch: int = 0
    rank: int = 0
    world: int = 1
    accumulated: int = 1


Request = tuple[Tensor, Tensor | int]
"""The rows of a batch, (b,) int64, and which visit of them this is, a number or (b,) int64."""


class Order(ABC):
    """The rows of each batch."""

    @abstractmethod
    def batches(self, place: Place) -> int:
        """How many batches a process sees in an epoch."""

    @abstractmethod
    def rows(self, place: Place) -> Iterator[Request]:
        """For each batch its rows, (b,) int64, and which visit of them this is."""

    def steps(self, place: Place) -> Iterator[Tensor | None]:
        """For each batch the rows of its whole optimiser step, those of the other batches that are
        accumulated and of the other processes included; None where nobody descends."""
        return itertools.repeat(None, self.batches(place))


class Sequential(Order):
    """Ascending, every row exactly once; the last batch may be smaller.

    Several processes take turns row by row; nothing is padded, so that no sample counts twice.

    Args:
        rows: (n,) int64.
        batch_size: rows of a batch.
    """

    def __init__(self, rows: Tensor, batch_size: int) -> None:
        self._rows = rows
        self.batch_size = batch_size

    def batches(self, place: Place) -> int:
        """The share of the process, rounded up to whole batches."""
        share = len(range(place.rank, len(self._rows), place.world))
        return -(-share // self.batch_size)

    def rows(self, place: Place) -> Iterator[Request]:
        """The share of the process, in order."""
        share = self._rows[place.rank :: place.world]
        for start in range(0, len(share), self.batch_size):
            yield share[start : start + self.batch_size], place.epoch


class Shuffled(Order):
    """Freshly shuffled in each epoch.

    The global order is cut into global batches of ``world * batch_size`` rows, and each process
    takes every ``world``-th row of each: shares are disjoint and equally long, and the order of a
    run on one process with the larger batch is the same. So it is where batches are accumulated:
    each optimiser step sees the rows of one larger batch.

    With ``size`` larger than the number of rows, the rows are gone through again and again, freshly
    shuffled each time, until ``size`` rows have been seen: the budget of the larger set, spent on
    the smaller one. Each time is a visit of its own, so that augmentation varies.

    Args:
        rows: (n,) int64.
        batch_size: rows of a batch, on each process.
        seed: any whole number.
        size: rows of an epoch; by default n.
        drop_last: leave out the rows that do not fill an optimiser step, which is a batch unless
            several are accumulated. They come in another epoch. A share smaller than one step is
            one small step all the same.
    """

    def __init__(
        self,
        rows: Tensor,
        batch_size: int,
        seed: int,
        size: int | None = None,
        drop_last: bool = True,
    ) -> None:
        self._rows = rows
        self.batch_size = batch_size
        self.seed = seed
        self.size = len(rows) if size is None else size
        self.drop_last = drop_last

    def batches(self, place: Place) -> int:
        """The same on every process."""
        share = self.size // place.world
        whole = share // (self.batch_size * place.accumulated) * place.accumulated
        return whole if self.drop_last and whole else -(-share // self.batch_size)

    def rows(self, place: Place) -> Iterator[Request]:
        """The share of the process of this epoch's order."""
        order, visits = (each[place.rank :: place.world] for each in self._epoch(place))
        for number in range(self.batches(place)):
            part = slice(number * self.batch_size, (number + 1) * self.batch_size)
            yield order[part], visits[part]

    def steps(self, place: Place) -> Iterator[Tensor | None]:
        """As many consecutive rows of this epoch's order as all batches of a step have."""
        order, _ = self._epoch(place)
        size = self.batch_size * place.accumulated * place.world
        for number in range(self.batches(place)):
            start = number // place.accumulated * size
            yield order[start : start + size]

    def _epoch(self, place: Place) -> tuple[Tensor, Tensor]:
        """The rows of all processes in this epoch's order, and which visit of each this is."""
        rounds = -(-self.size // len(self._rows))
        visits = place.epoch * rounds + torch.arange(rounds)[:, None]
        # Sorting by random keys is a shuffle whose order no generator's state can disturb.
        keys = absorb(absorb(words(self.seed), words(visits)), words(self._rows))
        order = self._rows[torch.from_numpy(keys.argsort(axis=1))].flatten()[: self.size]
        visits = visits.expand(rounds, len(self._rows)).flatten()[: self.size]
        usable = self.size - self.size % place.world
        return order[:usable], visits[:usable]
