"""Training inputs that come again, so that what teachers say of them can be kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ensemble_kd.data.augment import Augmentation
from ensemble_kd.data.batches import Table

Piece = tuple[int, int, int]
"""View, and the first sample and the one after the last."""


@dataclass(frozen=True)
class Recurring:
    """Finitely many inputs, by sample and view.

    Args:
        table: the samples.
        index: (n,) int64, ascending: the numbers of the samples, their rows in the table.
        views: how many inputs each sample has.
        augment: how they are varied; None for not at all.
        seed: seed of the augmentation.
        ragged: whether a batch of fewer samples is served as it is, as the last one of a validation
            split, and not left out, as in training.
    """

    table: Table
    index: Tensor
    views: int
    augment: Augmentation | None
    seed: int
    ragged: bool = False

    def inputs(self, rows: Tensor, view: int) -> Any:
        """(b, ...) the inputs of some samples, (b,) int64, in one view."""
        return self.table.batch(rows, view, self.augment, self.seed).inputs

    def chunks(self, size: int) -> Iterator[Piece]:
        """All pieces of at most ``size`` samples, in order."""
        for view in range(self.views):
            for start in range(0, len(self.index), size):
                yield view, start, min(start + size, len(self.index))

    def batch(self, view: int, start: int, stop: int, size: int) -> Any:
        """(b, ...) the inputs of a piece; b is ``size``, filled up with its first samples.

        A matrix product of another size rounds differently: only in batches as large as those of
        the training do networks say the same to the last bit. With ``ragged``, b is that of the
        piece.
        """
        rows = self.index[start:stop]
        if self.ragged:
            return self.inputs(rows, view)
        filling = rows[torch.arange(size - len(rows)) % len(rows)]
        return self.inputs(torch.cat([rows, filling]), view)
