"""The user's own dataloader, read as one that yields ``Batch``."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map
from torch.utils.data import DataLoader, DistributedSampler

from ensemble_kd.data.as_batch import as_batch
from ensemble_kd.data.orders import Place
from ensemble_kd.errors import UserError
from ensemble_kd.streams import streams, take_up
from ensemble_kd.types import Batch, labelled


class AdaptedBatches:
    """A user's dataloader, re-iterable as ``Batch``.

    Args:
        loader: what yields the user's batches.
        place: epoch, rank and number of processes; asked at the beginning of each iteration.
        labelled_only: see ``Adapted``.
        views: see ``Adapted``.

    Attributes:
        before: where the random streams stood before the last batch was read.
    """

    def __init__(
        self,
        loader: Iterable[Any],
        place: Callable[[], Place],
        labelled_only: bool = False,
        views: int = 1,
    ) -> None:
        self.loader = loader
        self.place = place
        self.labelled_only = labelled_only
        self.views = views
        self.before: dict[str, Any] | None = None
        self._first = 0
        self._before_first: dict[str, Any] | None = None

    def skip(self, count: int, before: dict[str, Any] | None) -> None:
        """Throw away the first batches of the next iteration; they have to be read all the same.

        Args:
            count: how many.
            before: where the random streams stood before the batch behind them was read.
        """
        self._first, self._before_first = count, before

    def generators(self) -> list[torch.Generator]:
        """The generators that the loader and its samplers hold, each once, in a fixed order."""
        sampler = getattr(self.loader, "batch_sampler", None)
        parts = (self.loader, getattr(self.loader, "sampler", None), sampler)
        held = [
            getattr(part, "generator", None) for part in (*parts, getattr(sampler, "sampler", 0))
        ]
        return list({id(each): each for each in held if isinstance(each, torch.Generator)}.values())

    def __len__(self) -> int:
        if not isinstance(self.loader, Sized):
            raise TypeError(f"{type(self.loader).__name__} has no length")
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        place = self.place()
        if isinstance(self.loader, DataLoader):
            sampler = self.loader.sampler
            if place.world > 1 and not isinstance(sampler, DistributedSampler):
                raise UserError(
                    f"with {place.world} processes, dataloaders must use a DistributedSampler, "
                    f"got {type(sampler).__name__}"
                )
            if isinstance(sampler, DistributedSampler):
                sampler.set_epoch(place.epoch)
        made = self._labelled() if self.labelled_only else self._pass()
        first, self._first = self._first, 0
        before, self._before_first = self._before_first, None
        return self._noted(made, first, before)

    def _noted(
        self, made: Iterator[Batch], first: int, before: dict[str, Any] | None
    ) -> Iterator[Batch]:
        """The batches behind the first ones; it is noted where the streams stood before each."""
        for _ in itertools.islice(made, first):
            pass
        if before is not None:
            take_up(before)
        while True:
            self.before = streams()
            batch = next(made, None)
            if batch is None:
                return
            yield batch

    def _pass(self) -> Iterator[Batch]:
        start = 0
        for said in self.loader:
            batch = as_batch(said, start)
            if len(batch.views) < self.views - 1:
                raise UserError(
                    f"the strategy asks for {self.views} augmentations of each sample; the "
                    f"dataloader must yield a Batch with that many less one in views, "
                    f"got {len(batch.views)}"
                )
            start += len(batch.target)
            yield batch

    def _labelled(self) -> Iterator[Batch]:
        """Labelled samples in batches of the usual size, for as many batches as a pass has."""
        given = budget = size = 0
        pending: Batch | None = None
        first = True
        while first or given < budget:
            for batch in self._pass():
                budget += first
                size = size or len(batch.target)
                if batch.mask is None and pending is None:
                    given += 1
                    yield batch
                else:
                    mask = labelled(batch)
                    known = _chosen(batch._replace(mask=mask), samples_of(mask))
                    pending = _joined(pending, known)
                    while len(pending.target) >= size and (first or given < budget):
                        given += 1
                        yield _chosen(pending, slice(size))
                        pending = _chosen(pending, slice(size, None))
                if not first and given >= budget:
                    return
            if first and not given and (pending is None or not len(pending.target)):
                raise UserError("labelled_only needs labelled samples, got none in a whole epoch")
            first = False


def samples_of(mask: Tensor) -> Tensor:
    """Which samples have any label, (b,) bool."""
    return mask.reshape(len(mask), -1).any(dim=1)


def _chosen(batch: Batch, rows: Tensor | slice) -> Batch:
    chosen: Batch = tree_map(lambda t: None if t is None else t[rows], batch)
    return chosen


def _joined(first: Batch | None, second: Batch) -> Batch:
    if first is None:
        return second
    joined: Batch = tree_map(lambda a, b: None if a is None else torch.cat([a, b]), first, second)
    return joined
