"""Data as a teacher sees it that knows some of the classes, or coarser ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils import _pytree as pytree

from ensemble_kd.teachers.label_space import Covered, LabelSpace
from ensemble_kd.types import UNLABELLED, Batch, labelled


def seen_by(entries: Covered | None, data: Any, classes: int) -> Any:
    """Data with the labels of a teacher; the data itself where ``entries`` is None."""
    return data if entries is None else Relabelled(data, LabelSpace(entries, classes))


class Relabelled(LightningDataModule):
    """The samples of a teacher's classes, with its labels; samples without a label stay.

    In training, samples of other classes give way to those of the teacher's in the same batch,
    from the first on: batches keep their size. In validation they are left out. Of samples whose
    tokens have classes, tokens of other classes have no label.

    Args:
        data: the samples, with the classes of the student.
        space: what the teacher's outputs mean.
    """

    def __init__(self, data: Any, space: LabelSpace) -> None:
        super().__init__()
        self.data = data
        self.space = space

    def prepare_data(self) -> None:
        """That of the data."""
        self.data.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        """That of the data."""
        self.data.trainer = self.trainer
        self.data.setup(stage)

    def teardown(self, stage: str | None = None) -> None:
        """That of the data."""
        self.data.teardown(stage)

    def train_dataloader(self) -> RelabelledBatches:
        """The training batches."""
        return self._batches("train_dataloader", filled=True)

    def val_dataloader(self) -> RelabelledBatches:
        """The validation batches."""
        return self._batches("val_dataloader", filled=False)

    def _batches(self, name: str, filled: bool) -> RelabelledBatches:
        self.data.trainer = self.trainer
        return RelabelledBatches(getattr(self.data, name)(), self.space, filled)


class RelabelledBatches:
    """Batches with the labels of a teacher.

    Args:
        batches: an iterable of ``Batch`` with a length.
        space: what the teacher's outputs mean.
        filled: put other samples in place of those of classes that are not the teacher's, rather
            than leaving them out.
    """

    def __init__(self, batches: Iterable[Batch], space: LabelSpace, filled: bool) -> None:
        self.batches: Any = batches
        self.space = space
        self.filled = filled

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        return (self._relabelled(batch) for batch in self.batches)

    def _relabelled(self, batch: Batch) -> Batch:
        mask = labelled(batch)
        target = self.space.labels(batch.target.where(mask, 0))
        foreign = mask & (target < 0)
        mask = mask & ~foreign
        # How many of these labels the other batches of an optimiser step have is not known.
        target = target.where(mask, UNLABELLED)
        own: Batch = batch._replace(target=target, mask=mask, labels=None)
        if foreign.ndim > 1:
            return own
        kept = (~foreign).nonzero().flatten()
        if self.filled:
            if not len(kept):
                return own  # nothing to learn from: a batch without any label
            rows = torch.arange(len(foreign))
            rows[foreign] = kept[torch.arange(int(foreign.sum())) % len(kept)]
            kept = rows
        return _chosen(own, kept)


def _chosen(batch: Batch, rows: Tensor) -> Batch:
    chosen: Batch = pytree.tree_map(
        lambda part: part[rows] if isinstance(part, Tensor) else part, batch
    )
    return chosen
