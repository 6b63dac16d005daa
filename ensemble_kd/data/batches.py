"""Samples in memory, served as whole batches."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ensemble_kd.data.augment import Augmentation
from ensemble_kd.data.counter import derive
from ensemble_kd.data.orders import Order, Place, Request
from ensemble_kd.data.pictures import Pictures
from ensemble_kd.data.source import Scale
from ensemble_kd.data.texts import Texts
from ensemble_kd.errors import UserError
from ensemble_kd.types import Batch


class Table:
    """Samples by row number.

    Inputs stay in memory as they came, images as bytes, and become standardised float32 when a
    batch is read: this is as fast as reading float32 and takes a quarter of the memory. Texts
    become ``Tokens``.

    Args:
        inputs: (n, ...) uint8 (read as [0, 1]) or float32, in memory or in files, or n texts.
        target: (n,) int64, or (n, l) of texts in which tokens have classes.
        mean: subtracted from the inputs; unused for texts.
        std: what they are divided by, > 0; unused for texts.
        mask: like ``target``, bool, true where it is a label; None when it is everywhere.
        places: (n, l) bool, where there is something to predict; None when that is everywhere.
        first: the number of the first sample; those of the others follow.

    Raises:
        UserError: ``mean`` or ``std`` do not fit the inputs.
    """

    def __init__(
        self,
        inputs: Tensor | Pictures | Texts,
        target: Tensor,
        mean: Scale = 0.0,
        std: Scale = 1.0,
        mask: Tensor | None = None,
        places: Tensor | None = None,
        first: int = 0,
    ) -> None:
        self.inputs: Any = inputs
        self.target = target
        self.mask = mask
        self.places = places
        self.first = first
        self._scaling = None if isinstance(inputs, Texts) else _Scaling(inputs, mean, std)

    def __len__(self) -> int:
        return len(self.target)

    def batch(
        self,
        rows: Tensor,
        visits: Tensor | int = 0,
        augment: Augmentation | None = None,
        seed: int = 0,
        views: int = 1,
        cycle: int | None = None,
    ) -> Batch:
        """The samples of some rows.

        Args:
            rows: (b,) int64.
            visits: which visit of them this is, a number or (b,) int64.
            augment: how the inputs are varied, before they are standardised.
            seed: seed of the augmentation, any whole number.
            views: how many times they are varied; the first is ``inputs``, the others ``views``.
            cycle: after how many visits the augmentations of a sample recur; None for never.
        """
        if cycle is not None:
            visits = visits % cycle
        # index_select is three times as fast as indexing with brackets, and always a copy.
        inputs: Any = self.inputs.index_select(0, rows)
        if self._scaling is not None:
            inputs = self._scaling.unit(inputs)
        index = rows + self.first
        varied = []
        for view in range(views):
            # The first view does not depend on how many others are asked for.
            own = derive(seed, f"view {view}") if view else seed
            seen = inputs if augment is None else augment(inputs, index, visits, own)
            varied.append(seen if self._scaling is None else self._scaling.standardised(seen))
        target = self.target.index_select(0, rows)
        # Without an augmentation all visits are alike.
        which = _which(rows, 0, 1) if augment is None else _which(rows, visits, cycle)
        return Batch(
            varied[0],
            target,
            index,
            _chosen(self.mask, rows),
            tuple(varied[1:]),
            which,
            places=_chosen(self.places, rows),
        )


class _Scaling:
    """How bytes and numbers become standardised.

    Args:
        inputs: (n, ...), of which only shape and type matter.
        mean: see ``Table``.
        std: see ``Table``.
    """

    def __init__(self, inputs: Tensor | Pictures, mean: Scale, std: Scale) -> None:
        self._scale = 1 / 255 if inputs.dtype == torch.uint8 else 1.0
        self._mean = _broadcast(mean, inputs, "mean")
        std_ = _broadcast(std, inputs, "std")
        if not (std_ > 0).all():
            raise UserError(f"data.source: std must be > 0, got {std}")
        self._factor = 1 / std_

    def unit(self, inputs: Tensor) -> Tensor:
        """Floats as they are, bytes in [0, 1]."""
        inputs = inputs.float()
        return inputs if self._scale == 1 else inputs.mul_(self._scale)

    def standardised(self, inputs: Tensor) -> Tensor:
        """With mean 0 and variance 1, if ``mean`` and ``std`` are those of the data."""
        return (inputs - self._mean).mul_(self._factor)


class Batches:
    """An iterable of batches for a trainer: re-iterable, with a length, without collate.

    Attributes:
        make: gives the batch of some rows and visits.
        fetch: gives the batches of an order's rows and visits, each made by ``make``; one after the
            other and only when it is asked for, unless somebody puts ``Ahead`` here.

    Args:
        table: the samples.
        order: which of them make up each batch.
        place: epoch, rank and number of processes; asked at the beginning of each iteration.
        augment: how inputs are varied.
        seed: seed of the augmentation, any whole number.
        views: how many times the inputs are varied.
        cycle: after how many visits the augmentations of a sample recur; None for never.
    """

    def __init__(
        self,
        table: Table,
        order: Order,
        place: Callable[[], Place],
        augment: Augmentation | None = None,
        seed: int = 0,
        views: int = 1,
        cycle: int | None = None,
    ) -> None:
        self.table = table
        self.order = order
        self.place = place
        self.augment = augment
        self.seed = seed
        self.views = views
        self.cycle = cycle
        self._first = 0
        # Not a method, which could not be sent to another process without all of this.
        self.make = functools.partial(
            table.batch, augment=augment, seed=seed, views=views, cycle=cycle
        )
        self.fetch: Callable[[Iterator[Request]], Iterator[Batch]] = functools.partial(
            itertools.starmap, self.make
        )

    def skip(self, count: int) -> None:
        """Leave out the first batches of the next iteration: they are not even made."""
        self._first = count

    def __len__(self) -> int:
        return self.order.batches(self.place())

    def __iter__(self) -> Iterator[Batch]:
        # Not itself a generator, so that the epoch is the one in which the iteration began.
        first, self._first = self._first, 0
        return self._batches(self.place(), first)

    def _batches(self, place: Place, first: int) -> Iterator[Batch]:
        alone = place.accumulated == place.world == 1
        steps = itertools.repeat(None) if alone else self.order.steps(place)
        steps = itertools.islice(steps, first, None)
        made = self.fetch(itertools.islice(self.order.rows(place), first, None))
        for batch, step in zip(made, steps, strict=not alone):
            yield batch if step is None else part_of_step(batch, step, self.table, place)


def part_of_step(batch: Batch, step: Tensor, table: Table, place: Place) -> Batch:
    """A batch that knows what it counts for in its optimiser step.

    The trainer divides the gradient by the number of accumulated batches and averages it over the
    processes. With these numbers that is the gradient of one batch of the whole step, of terms that
    are means over samples, over labels or over places.

    Args:
        batch: the batch.
        step: (s,) int64, the rows of the whole step.
        table: whose rows these are.
        place: number of processes and of accumulated batches.
    """
    share = len(batch.index) / len(step)
    labels, places = (
        None if where is None else int(where.index_select(0, step).sum())
        for where in (table.mask, table.places)
    )
    return batch._replace(
        labels=None if labels is None else share * labels,
        weight=share * place.accumulated * place.world,
        placed=None if places is None else places / len(step),
    )


def _chosen(values: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if values is None else values.index_select(0, rows)


def _which(rows: Tensor, visits: Tensor | int, cycle: int | None) -> Tensor | None:
    """(b,) int64, which of the recurring views of each sample this is."""
    if cycle is None:
        return None
    return visits.clone() if isinstance(visits, Tensor) else torch.full_like(rows, visits)


def _broadcast(scale: Scale, inputs: Tensor | Pictures, name: str) -> Tensor:
    """A scalar or one number per channel, in a shape that broadcasts against a batch."""
    values = torch.as_tensor(scale, dtype=torch.float32).reshape(-1)
    if not values.isfinite().all() or len(values) not in (1, inputs.shape[1]):
        raise UserError(
            f"data.source: {name} must be one finite number or one for each of {inputs.shape[1]} "
            f"channels, got {scale}"
        )
    return values.reshape(-1, *[1] * (len(inputs.shape) - 2))
