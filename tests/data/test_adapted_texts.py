"""Texts of a user's own datamodule, as they are adapted."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from tokenizers import Tokenizer, models
from torch.utils.data import DataLoader

from ensemble_kd.data import Adapted
from ensemble_kd.types import UNLABELLED, Batch, Tokens


class OfTokens(pl.LightningDataModule):
    """Texts as the project's networks read them, a class for each token."""

    def train_dataloader(self) -> Any:
        return self.served(0, 1, 2)

    def val_dataloader(self) -> Any:
        return self.served(3)

    def served(self, *numbers: int) -> Any:
        batches: Any = [self.batch(number) for number in numbers]
        return DataLoader(batches, batch_size=None, collate_fn=lambda batch: batch)

    def batch(self, number: int) -> Batch:
        ids = torch.arange(8).view(2, 4)
        mask = ids % 2 == 0
        tokens = Tokens(ids, ids > -1, ids * 0, torch.zeros(2, 5, dtype=torch.uint8))
        target = (ids % 3).where(mask, UNLABELLED)
        return Batch(tokens, target, torch.arange(2) + 2 * number, mask, places=mask)


class Backed:
    """As much of a tokenizer of transformers as is asked for."""

    def __init__(self) -> None:
        self.backend_tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 11}, "a"))


def test_texts_of_the_users_own() -> None:
    module = OfTokens()
    data = Adapted(module)
    assert data.inputs == (4,)
    assert data.per_token
    assert data.classes == 3
    assert data.tokenizer is data.vocabulary is data.mean is data.std is None
    (batch,) = data.val_dataloader()
    assert isinstance(batch.inputs, Tokens)
    assert batch.places is not None
    assert batch.mask is not None
    assert torch.equal(batch.places, batch.mask)
    module.tokenizer = Backed()  # type: ignore[attr-defined]
    assert isinstance(data.tokenizer, Tokenizer)
    assert data.vocabulary == 12


def test_labels_alone_keep_the_parts_of_texts_together() -> None:
    data = Adapted(OfTokens(), labelled_only=True)
    batches = list(data.train_dataloader())
    assert len(batches) == 3
    assert all(batch.inputs.ids.shape == batch.target.shape == (2, 4) for batch in batches)
    assert all(torch.equal(batch.mask, batch.places) for batch in batches)  # type: ignore[arg-type]
