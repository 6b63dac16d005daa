"""Texts whose words have classes, as a teacher of some of these sees them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ensemble_kd.data import InMemory, Relabelled, WordPiece
from ensemble_kd.teachers import LabelSpace, covered
from ensemble_kd.types import UNLABELLED


def test_words_of_other_classes_have_no_label(tagged: Callable[..., Any]) -> None:
    samples = InMemory(tagged(60), 8, tokenizer=WordPiece(120), labelled=30)
    space = LabelSpace(covered(["B-x", "O"], samples.names), samples.classes)
    data = Relabelled(samples, space)
    for loader in ("train_dataloader", "val_dataloader"):
        for own, seen in zip(getattr(samples, loader)(), getattr(data, loader)(), strict=True):
            assert torch.equal(seen.index, own.index)
            assert torch.equal(seen.places, own.places)
            assert torch.equal(seen.inputs.ids, own.inputs.ids)
            expected = torch.full_like(own.target, UNLABELLED)
            expected[own.target == 1] = 0
            expected[own.target == 0] = 1
            assert torch.equal(seen.target, expected)
            assert torch.equal(seen.mask, expected != UNLABELLED)
            assert (seen.target != own.target).any()
