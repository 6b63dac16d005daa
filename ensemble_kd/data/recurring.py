"""Inputs that come again, so that what teachers say of them can be kept."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ensemble_kd.data.augment import Augmentation
from ensemble_kd.data.batches import Table
from ensemble_kd.data.orders import Request
from ensemble_kd.types import Batch

Piece = tuple[int, int, int]
"""View, and the first sample and the one after the last."""

Fetch = Callable[[Iterator[Request]], Iterator[Batch]]


@dataclass(frozen=True)
class Recurring:
    """Finitely many inputs, by sample and view.

    Args:
        table: the samples.
        index: (n,) int64, ascending: the numbers of the samples, as in ``Batch.index``.
        views: how many inputs each sample has.
        augment: how they are varied; None for not at all.
        seed: seed of the augmentation.
        ragged: whether a batch of fewer samples is served as it is, as the last one of a validation
            split, and not left out, as in training.
        fetch: gives the batch of each request, in order, as ``make`` does; None makes them here.
    """

    table: Table
    index: Tensor
    views: int
    augment: Augmentation | None
    seed: int
    ragged: bool = False
    fetch: Fetch | None = None

    @property
    def make(self) -> Callable[[Tensor, Tensor | int], Batch]:
        """What gives the batch of some rows of the table in a view."""
        return functools.partial(self.table.batch, augment=self.augment, seed=self.seed)

    def inputs(self, index: Tensor, view: int) -> Any:
        """(b, ...) the inputs of some samples, by number, (b,) int64, in one view."""
        return self.make(index - self.table.first, view).inputs

    def chunks(self, size: int) -> Iterator[Piece]:
        """All pieces of at most ``size`` samples, in order."""
        for view in range(self.views):
            for start in range(0, len(self.index), size):
                yield view, start, min(start + size, len(self.index))

    def batches(self, pieces: Iterable[Piece], size: int) -> Iterator[Batch]:
        """The batch of each piece, of ``size`` samples, filled up with its first ones.

        A matrix product of another size rounds differently: only in batches as large as those of
        the training do networks say the same to the last bit. With ``ragged``, it is as
        large as the piece.

        Args:
            pieces: in order.
            size: of the batches of the training.
        """
        fetch = self.fetch or functools.partial(itertools.starmap, self.make)
        requests = ((self._rows(start, stop, size), view) for view, start, stop in pieces)
        return fetch(requests)

    def _rows(self, start: int, stop: int, size: int) -> Tensor:
        rows = self.index[start:stop] - self.table.first
        if self.ragged:
            return rows
        return torch.cat([rows, rows[torch.arange(size - len(rows)) % len(rows)]])
