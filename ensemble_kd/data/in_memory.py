"""Data that fits into memory, split, partly labelled and served as whole batches."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor

from ensemble_kd.data.augment import Augmentation, Chain
from ensemble_kd.data.batches import Batches, Table
from ensemble_kd.data.counter import derive
from ensemble_kd.data.opened import Identities, Opened
from ensemble_kd.data.opening import Opening
from ensemble_kd.data.orders import Place, Sequential, Shuffled
from ensemble_kd.data.recurring import Recurring
from ensemble_kd.data.source import Source
from ensemble_kd.data.synthesis import Synthesis
from ensemble_kd.data.tables import plain
from ensemble_kd.data.tokenizing import Tokenizing, as_tokenizing, vocabulary_of
from ensemble_kd.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class InMemory(LightningDataModule):
    """A source, split into training, validation and test, with few or all labels in training.

    Splits, labelled samples, order and augmentation are functions of ``seed`` alone (and of
    ``Place``, for the order). ``Batch.index`` is the row number of a sample in the source's
    training part, whatever the seed. Behind those are the numbers of made-up samples, then those of
    the official validation part and of the official test part, where there are such.

    Texts become ``Tokens`` of one length for all batches. Where each word has a class, that of its
    first token is ``Batch.target`` (b, l), and ``Batch.places`` says where these tokens are; the
    splits and the labelled samples are whole texts then, drawn without regard to their classes.

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
        synthesise: makes further training samples, without labels, from the training split.
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
        tokenizer: of texts, and of nothing else: where their tokenizer comes from. Text is the path
            of one that is there, or ``ID@COMMIT`` of one on the Hugging Face hub.
        length: of texts in tokens, special ones included; longer ones are cut. None for that of the
            longest text of the training split, at most ``texts.LONGEST``.
        splits: folder in which splits are kept from when they are first made, so that they stay
            the same whatever later versions do; None makes them each time.

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
        synthesise: Synthesis | None = None,
        labelled_only: bool = False,
        views: int = 1,
        drop_last: bool = True,
        cycle: int | None = None,
        tokenizer: Tokenizing | str | None = None,
        length: int | None = None,
        splits: str | Path | None = None,
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
        if length is not None and length < 1:
            raise ValueError(f"length must be >= 1 or null for the longest text, got {length}")
        self.name = type(source).__name__
        self.source = source
        self.batch_size = batch_size
        self.labelled = labelled
        self.seed = seed
        self.augment = augment if isinstance(augment, Augmentation) else Chain(augment or ())
        self.synthesise = synthesise
        self.labelled_only = labelled_only
        self.views = views
        self.drop_last = drop_last
        self.cycle = cycle
        self._opening = Opening(
            *(source, labelled, seed, val_share, test_share, synthesise),
            *(as_tokenizing(tokenizer), length, None if splits is None else Path(splits)),
        )

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
        return self._opened.names

    @property
    def mean(self) -> float | tuple[float, ...] | None:
        """What is subtracted from the inputs, a number or one for each channel; None for texts."""
        scaling = self._opened.scaling
        return None if scaling is None else plain(scaling.mean)

    @property
    def std(self) -> float | tuple[float, ...] | None:
        """What they are divided by afterwards, likewise."""
        scaling = self._opened.scaling
        return None if scaling is None else plain(scaling.std)

    @property
    def tokenizer(self) -> Tokenizer | None:
        """What makes the tokens of texts, padded and truncated; None for what is no text."""
        found: Tokenizer | None = self._opened.tokenizer
        return found

    @property
    def vocabulary(self) -> int | None:
        """How many rows an embedding of tokens has; None for what is no text."""
        found = self._opened.tokenizer
        return None if found is None else vocabulary_of(found)

    @property
    def per_token(self) -> bool:
        """Whether tokens have classes, and not whole samples."""
        return self._opened.known.target.ndim > 1

    def accompany(self, folder: Path) -> None:
        """Write beside a delivered network what its inputs are made with; see ``Opened``."""
        self._opened.accompany(folder)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that decides what batches hold, in hexadecimal, the same in each process.

        It covers the arrays, their standardisation, the splits, the labelled samples, the batch
        size, the augmentation and the seed. It leaves out where files lie, and what may differ from
        one use of the data to the next: ``labelled_only``, ``views`` and ``Place``.
        """
        opened = self._opened
        mean, std = opened.scaling or (None, None)
        settings = (
            np.asarray(mean).tolist(),
            np.asarray(std).tolist(),
            self.batch_size,
            self.drop_last,
            self.seed,
            opened.parts.classes,
            self.augment,
            *([] if self.synthesise is None else [self.synthesise]),
            *([] if self.cycle is None else [f"cycle {self.cycle}"]),
        )
        return opened.digest(settings)

    def identities(self) -> Identities:
        """The ids by which the user knows all samples of train, val and test, and their numbers.

        Raises:
            UserError: samples were made up, or the ids do not tell samples apart.
        """
        return self._opened.identities()

    def sizes(self) -> dict[str, int]:
        """Samples: ``train``, ``labelled`` (those of them with a label), ``val``, ``test``."""
        opened = self._opened
        return {
            "train": len(opened.rows.train),
            "labelled": len(opened.labelled),
            "val": len(opened.val[1]),
            "test": len(opened.test[1]),
        }

    def prepare_data(self) -> None:
        """Keep the split: from now on it is this one. Called when a training begins."""
        self._opened.stored.keep(self._opened.rows)

    def setup(self, stage: str | None = None) -> None:
        """Read and split the data; a second call does nothing."""
        # An augmentation that does not fit the samples fails here and not in the first epoch.
        self._opened.known.batch(torch.arange(1), 0, self._varied)

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
            table, held_out = self._held_out(split)
            index = held_out + table.first
            return Recurring(table, index, views=1, augment=None, seed=0, ragged=True)
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

    @cached_property
    def _varied(self) -> Augmentation | None:
        """The augmentation, if there is any."""
        if self.augment == Chain(()):
            return None
        tokenizer = self._opened.tokenizer
        return self.augment if tokenizer is None else self.augment.fitted(tokenizer)

    @property
    def _cycles(self) -> bool:
        return self.labelled_only and len(self._opened.labelled) < len(self._opened.taught)

    @cached_property
    def _opened(self) -> Opened:
        return self._opening.opened()

    def _place(self) -> Place:
        if self.trainer is None:
            return Place()
        asks = self.trainer
        accumulated = asks.accumulate_grad_batches
        return Place(asks.current_epoch, asks.global_rank, asks.world_size, accumulated)
