"""Data that fits into memory, split, partly labelled and served as whole batches."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor

from ensemble_kd.data.augment import Augmentation, Chain
from ensemble_kd.data.batches import Batches, Table, extended, table_of
from ensemble_kd.data.counter import derive
from ensemble_kd.data.munge import Munge
from ensemble_kd.data.orders import Place, Sequential, Shuffled
from ensemble_kd.data.pictures import Pictures
from ensemble_kd.data.recurring import Recurring
from ensemble_kd.data.source import Parts, Source
from ensemble_kd.data.splits import RowArray, Split, drawn, split
from ensemble_kd.errors import UserError
from ensemble_kd.types import UNLABELLED


@dataclass(frozen=True)
class _Opened:
    """The data once it was read and split.

    ``taught`` are the rows of ``hidden`` to learn from; ``val`` and ``test`` are tables and rows.
    """

    parts: Parts
    rows: Split
    labelled: RowArray
    taught: Tensor
    known: Table
    hidden: Table
    val: tuple[Table, Tensor]
    test: tuple[Table, Tensor]


class InMemory(LightningDataModule):
    """A source, split into training, validation and test, with few or all labels in training.

    Splits, labelled samples, order and augmentation are functions of ``seed`` alone (and of
    ``Place``, for the order). ``Batch.index`` is the row number of a sample in the source's
    training part, whatever the seed; in batches of an official test part, its row number there.

    The data is read when it is first needed: by ``setup`` or by any of the properties.

    Args:
        source: what the data is.
        batch_size: samples of a batch, on each process.
        labelled: how many training samples keep their label, stratified, at least one of each
            class; the others have the target ``UNLABELLED`` and a false mask. None keeps all.
        seed: decides splits, labelled samples, order and augmentation.
        val_share: share of the source's training part that becomes the validation split.
        test_share: likewise for the test split; unused when the source has an official one.
        augment: how training inputs are varied: one augmentation, several in order, or none.
        synthesise: makes further training samples, without labels, from the training split; their
            numbers in ``Batch.index`` follow those of the source's training part.
        labelled_only: training batches hold labelled samples only, freshly shuffled again and
            again until as many batches were seen as with all samples; may be changed between
            stages. Without ``labelled`` this changes nothing.
        views: independent augmentations of each training sample; the first is ``Batch.inputs``, the
            others are ``Batch.views``. May be changed between stages as well.
        cycle: after how many visits the augmented views of a training sample recur, so that what
            teachers say of them can be kept; None for new views at each visit.
        drop_last: leave out the training samples that do not fill the last batch of an epoch, or
            its last step where batches are accumulated (other ones in each epoch). Validation and
            test always hold every sample exactly once.

    Raises:
        ValueError: a number is out of its range.
        UserError: from ``setup`` and the properties, when the data cannot be read or split.
    """

    def __init__(
        self,
        source: Source,
        batch_size: int = 64,
        labelled: int | None = None,
        seed: int = 0,
        val_share: float = 0.15,
        test_share: float = 0.15,
        augment: Augmentation | Sequence[Augmentation] | None = None,
        synthesise: Munge | None = None,
        labelled_only: bool = False,
        views: int = 1,
        drop_last: bool = True,
        cycle: int | None = None,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size must be >= 1, got {batch_size}")
        if views < 1:
            raise ValueError(f"views must be >= 1, got {views}")
        if cycle is not None and cycle < 1:
            raise ValueError(f"cycle must be >= 1 or null for views that never recur, got {cycle}")
        if labelled is not None and labelled < 1:
            raise ValueError(f"labelled must be >= 1 or null for all labels, got {labelled}")
        if not 0 < val_share < 1:
            raise ValueError(f"val_share must be in (0, 1), got {val_share}")
        if not 0 < test_share < 1 - val_share:
            raise ValueError(
                f"test_share must be in (0, {1 - val_share:g}), which is what val_share leaves, "
                f"got {test_share}"
            )
        self.name = type(source).__name__
        self.source = source
        self.batch_size = batch_size
        self.labelled = labelled
        self.seed = seed
        self.val_share = val_share
        self.test_share = test_share
        self.augment = augment if isinstance(augment, Augmentation) else Chain(augment or ())
        self.synthesise = synthesise
        self.labelled_only = labelled_only
        self.views = views
        self.drop_last = drop_last
        self.cycle = cycle

    @property
    def inputs(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self._opened.known.inputs.shape[1:])

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self._opened.parts.classes

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes, in their order."""
        parts = self._opened.parts
        return parts.names or tuple(map(str, range(parts.classes)))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that decides what batches hold, in hexadecimal, the same in each process.

        It covers the arrays, their standardisation, the splits, the labelled samples, the batch
        size, the augmentation and the seed. It leaves out where files lie, and what may differ from
        one use of the data to the next: ``labelled_only``, ``views`` and ``Place``.
        """
        opened = self._opened
        said = hashlib.sha256()
        settings = (
            np.asarray(self.source.mean).tolist(),
            np.asarray(self.source.std).tolist(),
            self.batch_size,
            self.drop_last,
            self.seed,
            opened.parts.classes,
            self.augment,
            *([] if self.synthesise is None else [self.synthesise]),
            *([] if self.cycle is None else [f"cycle {self.cycle}"]),
        )
        said.update(repr(settings).encode())
        parts = opened.parts
        arrays: list[npt.NDArray[np.generic] | Pictures] = [*parts.train]
        arrays.extend([*(parts.test or ()), *(parts.val or ()), *opened.rows, opened.labelled])
        for array in arrays:
            if isinstance(array, Pictures):
                said.update(array.digest.encode())
                continue
            said.update(f"{array.dtype.str} {array.shape}".encode())
            said.update(np.ascontiguousarray(array).data)
        return said.hexdigest()

    def sizes(self) -> dict[str, int]:
        """Samples: ``train``, ``labelled`` (those of them with a label), ``val``, ``test``."""
        opened = self._opened
        return {
            "train": len(opened.rows.train),
            "labelled": len(opened.labelled),
            "val": len(opened.val[1]),
            "test": len(opened.test[1]),
        }

    def setup(self, stage: str | None = None) -> None:
        """Read and split the data; a second call does nothing."""
        self._opened  # noqa: B018 - a cached property

    def train_dataloader(self) -> Batches:
        """Augmented training batches in a fresh order each epoch."""
        opened = self._opened
        rows = torch.from_numpy(opened.labelled) if self._cycles else opened.taught
        order = Shuffled(
            rows,
            self.batch_size,
            derive(self.seed, "order"),
            size=len(opened.taught),
            drop_last=self.drop_last,
        )
        if order.batches(self._place()) == 0:
            raise UserError(
                f"data: {len(opened.taught)} training samples cannot be shared among "
                f"{self._place().world} processes"
            )
        table = opened.known if self._cycles else opened.hidden
        seed = derive(self.seed, "augment")
        return Batches(table, order, self._place, self._varied, seed, self.views, self.cycle)

    def recurring(self, split: Literal["train", "val", "test"] = "train") -> Recurring | None:
        """The inputs of a split, where there are finitely many of them: by sample and view."""
        if split != "train":
            return Recurring(*self._held_out(split), views=1, augment=None, seed=0, ragged=True)
        if self._varied is not None and self.cycle is None:
            return None
        opened = self._opened
        views = 1 if self._varied is None or self.cycle is None else self.cycle
        rows = torch.from_numpy(opened.labelled) if self._cycles else opened.taught
        index = rows.sort().values
        return Recurring(opened.hidden, index, views, self._varied, derive(self.seed, "augment"))

    def val_dataloader(self) -> Batches:
        """Validation batches in a fixed order, all labelled."""
        table, rows = self._held_out("val")
        return Batches(table, Sequential(rows, self.batch_size), self._place)

    def test_dataloader(self) -> Batches:
        """Test batches in a fixed order, all labelled."""
        table, rows = self._held_out("test")
        return Batches(table, Sequential(rows, self.batch_size), self._place)

    def _held_out(self, split: Literal["val", "test"]) -> tuple[Table, Tensor]:
        """A table and the rows of it that make up a split, ascending."""
        return self._opened.val if split == "val" else self._opened.test

    @property
    def _varied(self) -> Augmentation | None:
        """The augmentation, if there is any."""
        return None if self.augment == Chain(()) else self.augment

    @property
    def _cycles(self) -> bool:
        return self.labelled_only and len(self._opened.labelled) < len(self._opened.taught)

    @cached_property
    def _opened(self) -> _Opened:
        parts = self.source.load()
        val_share = self.val_share if parts.val is None else None
        test_share = self.test_share if parts.test is None else None
        where = f"data ({type(self.source).__name__})"
        rows = split(parts.train.labels, parts.classes, val_share, test_share, self.seed, where)
        chosen = rows.train
        if self.labelled is not None and self.labelled != len(rows.train):
            labels = parts.train.labels[rows.train]
            chosen = rows.train[
                drawn(labels, self.labelled, derive(self.seed, "labelled"), where="data.labelled")
            ]
        known = table_of(parts.train, self.source)
        hidden = known
        if len(chosen) < len(rows.train):
            mask = torch.zeros(len(known), dtype=torch.bool)
            mask[torch.from_numpy(chosen)] = True
            # The labels that are kept back are not even in the table that training reads.
            target = torch.where(mask, known.target, UNLABELLED)
            hidden = Table(known.inputs, target, self.source.mean, self.source.std, mask)
        taught = torch.from_numpy(rows.train)
        if self.synthesise is not None:
            inputs = parts.train.inputs
            if isinstance(inputs, Pictures):
                raise UserError("data.synthesise: expected a table of numbers, got files of images")
            made = self.synthesise(inputs[rows.train], derive(self.seed, "synthesise"))
            taught = torch.cat([taught, torch.arange(len(made)) + len(known)])
            hidden = extended(hidden, torch.from_numpy(made), self.source)
        val = (known, torch.from_numpy(rows.val))
        if parts.val is not None:
            val = (table_of(parts.val, self.source), torch.arange(len(parts.val.labels)))
        test = (known, torch.from_numpy(rows.test))
        if parts.test is not None:
            test = (table_of(parts.test, self.source), torch.arange(len(parts.test.labels)))
        # An augmentation that does not fit the samples fails here and not in the first epoch.
        known.batch(torch.arange(1), 0, self.augment)
        return _Opened(parts, rows, chosen, taught, known, hidden, val, test)

    def _place(self) -> Place:
        if self.trainer is None:
            return Place()
        asks = self.trainer
        accumulated = asks.accumulate_grad_batches
        return Place(asks.current_epoch, asks.global_rank, asks.world_size, accumulated)
