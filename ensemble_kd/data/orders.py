"""In which order the rows of a data set are seen: pure functions of seed, epoch and process."""

from __future__ import annotations

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
    """

    epoch: int = 0
    rank: int = 0
    world: int = 1


class Order(ABC):
    """The rows of each batch."""

    @abstractmethod
    def batches(self, place: Place) -> int:
        """How many batches a process sees in an epoch."""

    @abstractmethod
    def rows(self, place: Place) -> Iterator[tuple[Tensor, Tensor | int]]:
        """For each batch its rows, (b,) int64, and which visit of them this is."""


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

    def rows(self, place: Place) -> Iterator[tuple[Tensor, Tensor | int]]:
        """The share of the process, in order."""
        share = self._rows[place.rank :: place.world]
        for start in range(0, len(share), self.batch_size):
            yield share[start : start + self.batch_size], place.epoch


class Shuffled(Order):
    """Freshly shuffled in each epoch.

    The global order is cut into global batches of ``world * batch_size`` rows, and each process
    takes every ``world``-th row of each: shares are disjoint and equally long, and the order of a
    run on one process with the larger batch is the same.

    With ``size`` larger than the number of rows, the rows are gone through again and again, freshly
    shuffled each time, until ``size`` rows have been seen: the budget of the larger set, spent on
    the smaller one. Each time is a visit of its own, so that augmentation varies.

    Args:
        rows: (n,) int64.
        batch_size: rows of a batch, on each process.
        seed: any whole number.
        size: rows of an epoch; by default n.
        drop_last: leave out the rows that do not fill a batch. They come in another epoch. A share
            smaller than one batch is one small batch all the same.
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
        if self.drop_last:
            return max(share // self.batch_size, min(share, 1))
        return -(-share // self.batch_size)

    def rows(self, place: Place) -> Iterator[tuple[Tensor, Tensor | int]]:
        """The share of the process of this epoch's order."""
        rounds = -(-self.size // len(self._rows))
        visits = place.epoch * rounds + torch.arange(rounds)[:, None]
        # Sorting by random keys is a shuffle whose order no generator's state can disturb.
        keys = absorb(absorb(words(self.seed), words(visits)), words(self._rows))
        order = self._rows[torch.from_numpy(keys.argsort(axis=1))].flatten()[: self.size]
        visits = visits.expand(rounds, len(self._rows)).flatten()[: self.size]
        usable = self.size - self.size % place.world
        order = order[:usable][place.rank :: place.world]
        visits = visits[:usable][place.rank :: place.world]
        for number in range(self.batches(place)):
            part = slice(number * self.batch_size, (number + 1) * self.batch_size)
            yield order[part], visits[part]
