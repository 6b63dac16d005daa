"""Several tasks on the same samples."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils import _pytree as pytree

from ensemble_kd.errors import UserError
from ensemble_kd.networks.multi_head import Tasked
from ensemble_kd.types import UNLABELLED, Batch


class Tasks(LightningDataModule):
    """Each sample of some data once for each task, with the label that it has there.

    ``Batch.inputs`` is ``Tasked``: the inputs and the number of each sample's task. The classes of
    all tasks are numbered through, first those of task 0, then those of task 1 and so on, so that a
    network whose silent heads are ruled out (``MultiHead``) is trained and measured like any other.
    A sample's copies stay side by side, in the same batch and in the same split, and share its
    augmentation. ``Batch.index`` is the sample's own, times the number of tasks, plus the task.

    Args:
        samples: the data, with its own classes.
        tasks: for each task, by name, the class there of each class of the data.

    Raises:
        ValueError: there are no tasks, or a task has fewer than two classes or skips one.
        UserError: from ``setup`` and the properties, when a task does not name a class for each
            class of the data, or tokens have classes and not samples.
    """

    def __init__(self, samples: LightningDataModule, tasks: Mapping[str, Sequence[int]]) -> None:
        super().__init__()
        if not tasks:
            raise ValueError("tasks must hold at least one task, got none")
        for name, classes in tasks.items():
            if len(set(classes)) < 2 or set(classes) != set(range(len(set(classes)))):
                raise ValueError(
                    f"tasks.{name} must use the classes 0, 1 and so on, at least two and none left "
                    f"out, got {list(classes)}"
                )
        self.samples: Any = samples
        self.tasks = {name: list(classes) for name, classes in tasks.items()}

    @property
    def inputs(self) -> tuple[int, ...]:
        """Shape of one sample, without its task."""
        return tuple(self.samples.inputs)

    @property
    def classes(self) -> int:
        """Number of classes of all tasks together."""
        return sum(max(classes) + 1 for classes in self.tasks.values())

    @property
    def mean(self) -> float | tuple[float, ...] | None:
        """What the data subtracts from its inputs; see ``InMemory``."""
        mean: float | tuple[float, ...] | None = self.samples.mean
        return mean

    @property
    def std(self) -> float | tuple[float, ...] | None:
        """What it divides them by afterwards."""
        std: float | tuple[float, ...] | None = self.samples.std
        return std

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that decides what batches hold, in hexadecimal."""
        return hashlib.sha256(f"{self.samples.digest} {self.tasks}".encode()).hexdigest()

    @property
    def labelled_only(self) -> bool:
        """See ``InMemory``; may be changed between stages."""
        return bool(self.samples.labelled_only)

    @labelled_only.setter
    def labelled_only(self, value: bool) -> None:
        self.samples.labelled_only = value

    @property
    def views(self) -> int:
        """See ``InMemory``; may be changed between stages."""
        return int(self.samples.views)

    @views.setter
    def views(self, value: int) -> None:
        self.samples.views = value

    def sizes(self) -> dict[str, int]:
        """Samples of each part, each counted once for each task."""
        return {part: size * len(self.tasks) for part, size in self.samples.sizes().items()}

    def prepare_data(self) -> None:
        """That of the data."""
        self.samples.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        """That of the data."""
        self.samples.trainer = self.trainer
        self.samples.setup(stage)
        self._labels  # noqa: B018 - a cached property, which checks

    def train_dataloader(self) -> TaskBatches:
        """The training batches."""
        return self._batches("train_dataloader")

    def val_dataloader(self) -> TaskBatches:
        """The validation batches."""
        return self._batches("val_dataloader")

    def test_dataloader(self) -> TaskBatches:
        """The test batches."""
        return self._batches("test_dataloader")

    def _batches(self, name: str) -> TaskBatches:
        self.samples.trainer = self.trainer
        return TaskBatches(getattr(self.samples, name)(), self._labels)

    @cached_property
    def _labels(self) -> Tensor:
        """(classes of the data, tasks) the class, numbered through, of each class in each task."""
        if getattr(self.samples, "per_token", False):
            raise UserError(
                "data.tasks: expected one class for each sample, got one for each token"
            )
        first = 0
        columns = []
        for name, classes in self.tasks.items():
            if len(classes) != self.samples.classes:
                raise UserError(
                    f"data.tasks.{name}: expected a class for each of {self.samples.classes} "
                    f"classes of the data, got {len(classes)}"
                )
            columns.append(torch.tensor(classes) + first)
            first += max(classes) + 1
        return torch.stack(columns, dim=1)


class TaskBatches:
    """Batches of ordinary samples, read once for each task.

    Args:
        batches: an iterable of ``Batch`` with a length.
        labels: (classes, tasks) int64, the label in each task.
    """

    def __init__(self, batches: Iterable[Batch], labels: Tensor) -> None:
        self.batches: Any = batches
        self.labels = labels

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        return (self._tasked(batch) for batch in self.batches)

    def _tasked(self, batch: Batch) -> Batch:
        tasks = self.labels.shape[1]
        number = torch.arange(tasks)
        task = number.repeat(len(batch.index))
        known = batch.target != UNLABELLED
        target = self.labels[batch.target.where(known, 0)].where(known[:, None], UNLABELLED)

        def tasked(inputs: Any) -> Tasked:
            return Tasked(pytree.tree_map(lambda t: t.repeat_interleave(tasks, 0), inputs), task)

        return Batch(
            tasked(batch.inputs),
            target.flatten(),
            (batch.index[:, None] * tasks + number).flatten(),
            None if batch.mask is None else batch.mask.repeat_interleave(tasks),
            tuple(tasked(view) for view in batch.views),
            labels=None if batch.labels is None else batch.labels * tasks,
            weight=batch.weight,
        )
