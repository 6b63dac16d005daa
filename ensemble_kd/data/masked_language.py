"""Texts with some of their words hidden: language modelling for networks that read both ways."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningDataModule

from ensemble_kd.data.counter import derive
from ensemble_kd.data.masking import Masking
from ensemble_kd.data.tokenizing import MASKS, special
from ensemble_kd.errors import UserError
from ensemble_kd.types import UNLABELLED, Batch


class MaskedLanguage(LightningDataModule):
    """Texts whose classes are their own hidden tokens: a class for each token of the vocabulary.

    Of each text a share of the tokens is chosen, at least one. A chosen token is to be predicted;
    in its place stands mostly ``[MASK]``, sometimes a random other token, sometimes itself. Special
    tokens, those that the tokenizer marks as such, are neither chosen nor drawn, and padding is not
    touched. ``Batch.places`` are all tokens of a text, so that what needs no label, such as a soft
    term, counts all of them; ``Batch.mask`` are the chosen ones.

    What is chosen in a text is a function of the seed, the number of the sample and, in training,
    the epoch: it depends neither on the batch nor on the number of processes. In validation and
    test it is always the same. The labels of the data play no part, so every sample is used.

    Source: Devlin et al., BERT (arXiv 1810.04805), appendix A.1: 15% of the tokens, of these 80%
    hidden, 10% replaced, 10% kept; chosen anew in each epoch as in RoBERTa (Liu et al., arXiv
    1907.11692), section 4.1. Deviations: random tokens are drawn from the ordinary ones, not from
    the whole vocabulary; tokens and not whole words are chosen; there is no next sentence to tell.

    Where batches are accumulated for a step or shared by processes, each batch counts by its number
    of texts, and within it the mean is over its chosen tokens.

    Args:
        samples: data whose inputs are ``Tokens``, with ``tokenizer``, ``vocabulary`` and so on.
        share: of the tokens of a text that are chosen, in (0, 1]; at least one is.
        hidden: share of the chosen ones in whose place ``[MASK]`` stands, in [0, 1].
        replaced: share in whose place another token stands; the rest stays as it is.
        seed: of all that is drawn, any whole number.

    Raises:
        ValueError: a share is out of range.
        UserError: from ``setup`` and the properties, when the data holds no texts or its tokenizer
            has no ``[MASK]``.
    """

    mean = std = None
    per_token = True

    def __init__(
        self,
        samples: LightningDataModule,
        share: float = 0.15,
        hidden: float = 0.8,
        replaced: float = 0.1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0 < share <= 1:
            raise ValueError(f"share must be in (0, 1], got {share}")
        if not (0 <= hidden <= 1 and 0 <= replaced <= 1 and hidden + replaced <= 1 + 1e-9):
            raise ValueError(
                "hidden and replaced must be shares that make at most one together, got "
                f"{hidden} and {replaced}"
            )
        self.samples: Any = samples
        self.share = share
        self.hidden = hidden
        self.replaced = replaced
        self.seed = seed
        # All samples have labels of their own, whatever those of the data are.
        self.labelled_only = False

    @property
    def inputs(self) -> tuple[int, ...]:
        """Shape of one sample: (tokens,)."""
        return tuple(self.samples.inputs)

    @property
    def tokenizer(self) -> Any:
        """The ``tokenizers.Tokenizer`` that made the ids."""
        return self.samples.tokenizer

    @property
    def vocabulary(self) -> int:
        """Number of different tokens."""
        return int(self.samples.vocabulary)

    @property
    def classes(self) -> int:
        """Number of classes, which are the tokens."""
        return self.vocabulary

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes: the tokens as the tokenizer writes them."""
        written = (self.tokenizer.id_to_token(number) for number in range(self.vocabulary))
        return tuple(str(number) if name is None else name for number, name in enumerate(written))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that decides what batches hold, in hexadecimal."""
        settings = (self.share, self.hidden, self.replaced, self.seed)
        return hashlib.sha256(f"{self.samples.digest} masked {settings}".encode()).hexdigest()

    @property
    def views(self) -> int:
        """See ``InMemory``; may be changed between stages."""
        return int(self.samples.views)

    @views.setter
    def views(self, value: int) -> None:
        self.samples.views = value

    def sizes(self) -> dict[str, int]:
        """Texts of each part; all of them teach."""
        sizes: dict[str, int] = self.samples.sizes()
        return {**sizes, "labelled": sizes["train"]}

    def identities(self) -> Any:
        """The ids of all samples and their numbers, as the data has them."""
        return self.samples.identities()

    def accompany(self, folder: Path) -> None:
        """Write beside a delivered network what the data writes there: the tokenizer."""
        self.samples.accompany(folder)

    def prepare_data(self) -> None:
        """That of the data."""
        self.samples.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        """That of the data."""
        self.samples.trainer = self.trainer
        self.samples.setup(stage)
        self._masking  # noqa: B018 - a cached property, which checks

    def train_dataloader(self) -> MaskedBatches:
        """The training batches, masked anew in each epoch."""
        return self._batches("train_dataloader", "train", self._epoch)

    def val_dataloader(self) -> MaskedBatches:
        """The validation batches, always masked alike."""
        return self._batches("val_dataloader", "held out", lambda: 0)

    def test_dataloader(self) -> MaskedBatches:
        """The test batches, always masked alike."""
        return self._batches("test_dataloader", "held out", lambda: 0)

    def _batches(self, name: str, purpose: str, epoch: Callable[[], int]) -> MaskedBatches:
        self.samples.trainer = self.trainer
        seed = derive(self.seed, f"masked, {purpose}")
        return MaskedBatches(getattr(self.samples, name)(), self._masking, seed, epoch)

    def _epoch(self) -> int:
        return 0 if self.trainer is None else int(self.trainer.current_epoch)

    @cached_property
    def _masking(self) -> Masking:
        tokenizer = getattr(self.samples, "tokenizer", None)
        if tokenizer is None:
            raise UserError(
                f"data.samples: expected texts, got {type(self.samples).__name__}, which has no "
                "tokenizer"
            )
        mask = special(tokenizer, MASKS)
        if mask is None:
            raise UserError(
                f"data.samples: expected a tokenizer with a token to hide others with, one of "
                f"{', '.join(MASKS)}, got one without"
            )
        added = tokenizer.get_added_tokens_decoder()
        ordinary = torch.ones(self.vocabulary, dtype=torch.bool)
        ordinary[[mask[0], *(number for number, token in added.items() if token.special)]] = False
        if not ordinary.any():
            raise UserError("data.samples: expected a vocabulary of ordinary tokens, got none")
        return Masking(ordinary, mask[0], self.share, self.hidden, self.replaced)


class MaskedBatches:
    """Batches of texts with some tokens hidden.

    Args:
        batches: an iterable of ``Batch`` whose inputs are ``Tokens``, with a length.
        masking: hides tokens.
        seed: of all that is drawn.
        epoch: gives the number of the epoch; asked at the beginning of each iteration.
    """

    def __init__(
        self, batches: Iterable[Batch], masking: Masking, seed: int, epoch: Callable[[], int]
    ) -> None:
        self.batches: Any = batches
        self.masking = masking
        self.seed = seed
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        # Not itself a generator, so that the epoch is the one in which the iteration began.
        epoch = self.epoch()
        return (self._masked(batch, epoch) for batch in self.batches)

    def _masked(self, batch: Batch, epoch: int) -> Batch:
        inputs, target = self.masking(batch.inputs, batch.index, self.seed, epoch)
        views = tuple(
            self.masking(view, batch.index, derive(self.seed, f"view {number}"), epoch)[0]
            for number, view in enumerate(batch.views, start=1)
        )
        # How many tokens are chosen in the other batches of an optimiser step is not known here.
        return Batch(
            inputs,
            target,
            batch.index,
            target != UNLABELLED,
            views,
            weight=batch.weight,
            places=inputs.mask,
        )
