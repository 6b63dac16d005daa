"""Where rows lie, by the numbers of their samples and by views."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor

ABSENT = -(2**61)
"""Stands for the place of what is not there: no sum of two such with a real place is >= 0."""


class Places:
    """Where the row of a sample in a view lies, among those of all samples in all views.

    The rows of a view lie in the order of the numbers, one view after the other. Numbers are mostly
    dense: there a table finds a place faster than a search does.

    Args:
        index: (n,) int64, n > 0, ascending: the numbers of the samples.
        views: of each of them.
        apart: from a row to that of the same sample in the next view; n if not given.
    """

    def __init__(self, index: Tensor, views: int, apart: int | None = None) -> None:
        self.samples = len(index)
        self.views = views
        self._index: npt.NDArray[np.int64] = index.cpu().numpy()
        apart = self.samples if apart is None else apart
        # In both tables one entry on either side catches all that is out of range.
        self._starts = np.full(views + 2, ABSENT)
        self._starts[1:-1] = np.arange(views) * apart
        self._table: npt.NDArray[np.int32] | None = None
        dense = self._index[0] >= 0 and self._index[-1] < 8 * self.samples + 1024
        if dense and views * apart < 2**31:
            # The least number stays below zero whatever start is added to it.
            self._table = np.full(int(self._index[-1]) + 3, -(2**31), np.int32)
            self._table[self._index + 1] = np.arange(self.samples, dtype=np.int32)

    def of(self, index: Tensor, view: Tensor) -> npt.NDArray[np.int64]:
        """Places (b,) of samples (b,) in views (b,), both int64; negative where nothing lies."""
        samples = index.cpu().numpy()
        places: npt.NDArray[np.int64] = self._starts.take(view.cpu().numpy() + 1, mode="clip")
        if self._table is not None:
            places += self._table.take(samples + 1, mode="clip")
        else:
            found = self._index.searchsorted(samples)
            there = self._index.take(found, mode="clip") == samples
            places += np.where(there, found, ABSENT)
        return places
