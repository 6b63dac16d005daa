"""Batches of any size, made of one that is there, and data without samples of its own."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils._pytree import tree_map

from ensemble_kd.data import Batches, InMemory
from ensemble_kd.data.augment import Augmentation
from ensemble_kd.data.orders import Shuffled
from ensemble_kd.data.source import Parts, Samples
from ensemble_kd.types import Batch


def of_size(batch: Batch, size: int) -> Batch:
    """A batch of so many samples, which come again where there are too few."""
    rows = torch.arange(size) % len(batch.index)

    def chosen(part: Any) -> Any:
        return part.index_select(0, rows) if isinstance(part, Tensor) else part

    made: Batch = tree_map(chosen, batch)
    return made


def in_batches_of(loader: Any, size: int) -> Any:
    """The same loader with another batch size; itself where that cannot be changed."""
    if not isinstance(loader, Batches):
        return loader
    order = copy.copy(loader.order)
    if not isinstance(order, Shuffled):
        return loader
    order.batch_size = size
    other = copy.copy(loader)
    other.order = order
    return other


class Turns:
    """Batches that take turns, so often."""

    def __init__(self, batches: Sequence[Batch], rounds: int) -> None:
        self.batches = tuple(batches)
        self.rounds = rounds

    def __len__(self) -> int:
        return self.rounds * len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        for _ in range(self.rounds):
            yield from self.batches


class Few(LightningDataModule):
    """Data of a few batches that are there already, which takes no time to serve.

    Args:
        train: in each epoch.
        val: in each validation.
    """

    def __init__(self, train: Turns, val: Turns) -> None:
        super().__init__()
        self.train = train
        self.val = val

    def train_dataloader(self) -> Turns:
        """The training batches."""
        return self.train

    def val_dataloader(self) -> Turns:
        """The validation batches."""
        return self.val


class Noise:
    """A source of bytes that mean nothing, all labelled.

    Args:
        inputs: shape of a sample.
        classes: number of classes.
        samples: to validate and to test with; to train with, also one of each class at least.
    """

    mean = 0.5
    std = 0.25

    def __init__(self, inputs: Sequence[int], classes: int, samples: int) -> None:
        self.inputs = tuple(inputs)
        self.classes = classes
        self.samples = samples

    def load(self) -> Parts:
        """Training, validation and test."""
        generator = np.random.default_rng(0)

        def part(samples: int) -> Samples:
            bytes_ = generator.integers(0, 256, (samples, *self.inputs), dtype=np.uint8)
            return Samples(bytes_, np.arange(samples, dtype=np.int64) % self.classes)

        train = part(max(self.samples, self.classes))
        return Parts(train, part(self.samples), self.classes, val=part(self.samples))


def noise(
    inputs: Sequence[int],
    classes: int,
    batch_size: int,
    augment: Sequence[Augmentation],
    cycle: int | None,
) -> InMemory:
    """Data of about a batch in each part, of samples of a shape of which there is none here.

    Args:
        inputs: shape of a sample.
        classes: number of classes, >= 2.
        batch_size: samples of a batch.
        augment: how training inputs are varied.
        cycle: after how many visits their views recur.
    """
    source = Noise(inputs, classes, batch_size)
    return InMemory(source, batch_size, augment=augment, cycle=cycle)
