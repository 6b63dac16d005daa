"""A record that is read while another process writes it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from torch import Tensor

from ensemble_kd.cache import Places, Record, Shelf
from ensemble_kd.teachers.filling import DiskSlot
from ensemble_kd.types import Batch

PATIENCE = 60.0
"""Seconds without any news after which nobody waits for a row any longer."""

PAUSE = 0.002
"""Seconds between two looks for news."""


class Growing:
    """What one teacher has said by now, of inputs of which another process still asks it.

    Args:
        shelf: on which the record lies.
        slot: of the unfinished record.
        fed: says whether another process is at work on it.
    """

    def __init__(self, shelf: Shelf, slot: DiskSlot, fed: Callable[[], bool]) -> None:
        self.shelf = shelf
        self.slot = slot
        self._fed = fed
        plan = slot.writer.plan
        self._shape = plan.shape
        self._key = plan.key
        self._places = Places(slot.index, plan.views)
        self._heard = False
        self._record: Record | None = None

    def there(self, index: Tensor, view: Tensor) -> bool:
        """Whether samples (b,) in views (b,), both int64, can be read.

        Waits for another process, once it has written something, until it ends or nothing is heard
        of it for ``PATIENCE`` seconds.
        """
        places = self._places.of(index, view)
        if len(places) and places.min() < 0:
            return False
        written = self.slot.writer.written.reshape
        since = time.monotonic()
        while self._record is None and not written(-1)[places].all():
            fed = self._fed()
            if self._news():
                self._heard, since = True, time.monotonic()
            elif self._record is None:
                if not (fed and self._heard) or time.monotonic() - since > PATIENCE:
                    return False
                time.sleep(PAUSE)
        return True

    def read(self, index: Tensor, view: Tensor) -> Tensor:
        """(b, *shape) float32 for samples (b,) in views (b,), both int64, that are there."""
        if self._record is None:
            try:
                rows = self.slot.writer.read_rows(self._places.of(index, view))
            except FileNotFoundError:  # it was finished a moment ago
                self._look()
            else:
                said = self.slot.format.decode(rows, math.prod(self._shape))
                return said.view(-1, *self._shape)
        if self._record is None:
            raise RuntimeError(f"{self.slot.writer.folder}: expected a record, finished or begun")
        return self._record.read(index, view)

    def keep(self, batch: Batch, said: Tensor) -> None:
        """Write what was said of a batch here: (b, *shape).

        Raises:
            UserError: the disk is full.
        """
        if self._record is None and self.slot.lacks_batch(batch):
            self.slot.write_batch(batch, said.cpu())

    def _news(self) -> bool:
        """Whether others have written something, or all."""
        writer = self.slot.writer
        before = int(writer.written.sum())
        writer.refresh()
        if int(writer.written.sum()) > before:
            return True
        self._look()
        return False

    def _look(self) -> None:
        if self.shelf.folder(self._key).exists():
            self._record = self.shelf.find(self._key)
