"""Folders of images, decoded by other processes while the training goes on."""

from __future__ import annotations

import copy
import multiprocessing
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast
from weakref import WeakSet

from pytorch_lightning import LightningDataModule

from ensemble_kd.data.ahead import Ahead, Make
from ensemble_kd.data.augment import Augmentation
from ensemble_kd.data.batches import Batches
from ensemble_kd.data.folders import Folders, Keep
from ensemble_kd.data.in_memory import InMemory
from ensemble_kd.data.opened import Identities
from ensemble_kd.data.recurring import Recurring
from ensemble_kd.data.source import Scale

MOST = 8
"""Workers that ``auto`` starts at most, for each process of the training."""


class ImageFolder(LightningDataModule):
    """Images in folders, one folder for each class; see ``Folders`` and ``Pictures``.

    All but the decoding is as in ``InMemory``: splits, labelled samples, order, augmentation and
    standardisation are the same functions of the seed. ``Batch.index`` is the position of an image
    in the sorted paths of the training part. What batches hold does not depend on the number of
    workers, nor on whether decoded images are kept in memory, which needs no workers at all.

    Args:
        path: the folder with ``train/CLASS/*`` and perhaps ``val/`` and ``test/``, or ``CLASS/*``.
        size: height and width to which images are scaled; None where all are of one size.
        channels: 1 for grey, 3 for RGB; None for those of the first image.
        mean: subtracted from pixels in [0, 1]; None for that of ImageNet, or 0.5 for grey images.
        std: what they are divided by, likewise.
        batch_size: samples of a batch, on each process.
        labelled: how many training samples keep their label; None for all. See ``InMemory``.
        seed: decides splits, labelled samples, order and augmentation.
        val_share: share of the training part for validation, where there is no ``val/``.
        test_share: likewise for test, where there is no ``test/``.
        augment: how training inputs are varied: one augmentation, several in order, or none.
        workers: processes that decode, for each split that is read; 0 decodes in this process;
            ``auto``: as many as there are cores beside the one that trains, at most ``MOST``.
        ahead: batches that each worker makes before they are asked for.
        keep: ``memory``: all images are decoded at once and kept; ``off``: each is decoded whenever
            it is read; ``auto``: they are kept if that takes at most ``limit`` bytes.
        limit: bytes, > 0.
        labelled_only: training batches hold labelled samples only. See ``InMemory``.
        views: independent augmentations of each training sample. See ``InMemory``.
        drop_last: leave out the training samples that do not fill the last batch.
        cycle: after how many visits the augmented views of a training sample recur.
        splits: folder in which splits are kept from when they are first made. See ``InMemory``.

    Raises:
        ValueError: an argument is out of its range.
        UserError: from ``setup`` and the properties, when the images cannot be read or split.
    """

    def __init__(
        self,
        path: str | Path,
        size: Sequence[int] | None = None,
        channels: int | None = None,
        mean: Scale | None = None,
        std: Scale | None = None,
        batch_size: int = 64,
        labelled: int | None = None,
        seed: int = 0,
        val_share: float = 0.15,
        test_share: float = 0.15,
        augment: Augmentation | Sequence[Augmentation] | None = None,
        workers: int | Literal["auto"] = "auto",
        ahead: int = 2,
        keep: Keep = "auto",
        limit: float = 1e9,
        labelled_only: bool = False,
        views: int = 1,
        drop_last: bool = True,
        cycle: int | None = None,
        splits: str | Path | None = None,
    ) -> None:
        super().__init__()
        if workers != "auto" and (not isinstance(workers, int) or workers < 0):
            raise ValueError(f"workers must be auto or a number >= 0, got {workers!r}")
        if ahead < 1:
            raise ValueError(f"ahead must be >= 1, got {ahead}")
        self.source = Folders(path, size, channels, mean, std, keep, limit)
        self.samples = InMemory(
            self.source,
            batch_size,
            labelled,
            seed,
            val_share,
            test_share,
            augment,
            views=views,
            drop_last=drop_last,
            cycle=cycle,
            splits=splits,
        )
        self.name = type(self).__name__
        self.batch_size = batch_size
        self.workers = workers
        self.ahead = ahead
        self.labelled_only = labelled_only
        self.views = views
        self._started: WeakSet[Ahead] = WeakSet()

    @property
    def inputs(self) -> tuple[int, ...]:
        """Shape of one sample: channels, height and width."""
        return self.samples.inputs

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.samples.classes

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes: those of their folders, ascending."""
        return self.samples.names

    @property
    def mean(self) -> float | tuple[float, ...] | None:
        """What is subtracted from pixels in [0, 1]."""
        return self.samples.mean

    @property
    def std(self) -> float | tuple[float, ...] | None:
        """What they are divided by afterwards."""
        return self.samples.std

    @property
    def digest(self) -> str:
        """SHA-256 of all that decides what batches hold, the contents of all files among it."""
        return self.samples.digest

    def sizes(self) -> dict[str, int]:
        """Samples: ``train``, ``labelled`` (those of them with a label), ``val``, ``test``."""
        return self.samples.sizes()

    def identities(self) -> Identities:
        """The paths of all images in the folder, with slashes, and their numbers."""
        return self.samples.identities()

    def prepare_data(self) -> None:
        """Keep the split: from now on it is this one. Called when a training begins."""
        self.samples.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        """Find, look at and split the images; a second call does nothing."""
        self.samples.setup(stage)

    def train_dataloader(self) -> Batches:
        """Augmented training batches in a fresh order each epoch."""
        return self._ahead("train_dataloader")

    def val_dataloader(self) -> Batches:
        """Validation batches in a fixed order, all labelled."""
        return self._ahead("val_dataloader")

    def test_dataloader(self) -> Batches:
        """Test batches in a fixed order, all labelled."""
        return self._ahead("test_dataloader")

    def recurring(self, split: Literal["train", "val", "test"] = "train") -> Recurring | None:
        """The inputs of a split, where there are finitely many of them: by sample and view."""
        found = self._samples().recurring(split)
        return None if found is None else replace(found, fetch=self._fetch(found.make))

    def teardown(self, stage: str | None = None) -> None:
        """End the workers, which hold on to memory and are started anew when they are needed."""
        for ahead in self._started:
            ahead.close()

    def _samples(self) -> InMemory:
        self.setup()
        # A copy: this module may itself be one of several that share the opened samples.
        samples = copy.copy(self.samples)
        samples.trainer = self.trainer
        samples.labelled_only = self.labelled_only
        samples.views = self.views
        return samples

    def _ahead(self, name: str) -> Batches:
        batches = cast(Batches, getattr(self._samples(), name)())
        batches.fetch = self._fetch(batches.make) or batches.fetch
        return batches

    def _fetch(self, make: Make) -> Ahead | None:
        workers = 0 if self.source.kept else self._workers()
        if not workers:
            return None
        started = Ahead(make, workers, self.ahead, _device(self.trainer) == "cuda")
        self._started.add(started)
        return started

    def _workers(self) -> int:
        if multiprocessing.current_process().daemon:
            return 0  # such a process may not start others
        if self.workers != "auto":
            return self.workers
        processes = 1 if self.trainer is None else max(1, self.trainer.num_devices)
        return max(0, min(MOST, _cores() // processes - 1))


def _cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _device(trainer: Any) -> str:
    """The type of the device that trains."""
    return "cpu" if trainer is None else str(trainer.strategy.root_device.type)
