"""How well a tagger finds the entities of texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from ensemble_kd.types import SEPARATOR, UNLABELLED, Batch, Tokens

OUTSIDE = -1
"""The type of a word that belongs to no entity."""


class SpanF1(Metric):
    """Precision, recall and F1 of whole entities, micro-averaged over all types.

    An entity counts as found when both its boundaries and its type are right. Tags are those of the
    IOB2 scheme: ``B-TYPE`` begins an entity, ``I-TYPE`` goes on with one of the same type, ``O`` is
    outside. An ``I-TYPE`` that has nothing to go on with, at the beginning of a text, after ``O``
    or after another type, begins an entity itself.

    Source: the CoNLL-2003 shared task, Tjong Kim Sang and De Meulder (arXiv cs/0306050), section
    2.3, as its script ``conlleval`` counts. As there, precision is zero where nothing was found,
    recall where there is nothing to find, and F1 where both are zero. Before the first word all
    three are NaN.

    Only words that are there can count. Where texts were cut, entities in what was cut off are
    missing from what there was to find: recall and F1 are then too high, and depend on the length
    and on the tokenizer.

    Args:
        names: of the classes, in their order: ``O``, ``B-TYPE`` and ``I-TYPE``.

    Raises:
        ValueError: a name is none of these, or there is no type at all.

    Example:
        >>> metric = SpanF1(["O", "B-person", "I-person"])
        >>> metric.update(torch.tensor([[1, 2, 0, 1]]), torch.tensor([[1, 2, 0, 0]]))
        >>> {name: float(value) for name, value in metric.compute().items()}
        {'precision': 0.5, 'recall': 1.0, 'f1': 0.6666666865348816}
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    correct: Tensor
    found: Tensor
    present: Tensor
    words: Tensor
    types: Tensor
    begins: Tensor

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        tags = [_parsed(name) for name in names]
        kinds = sorted({kind for _, kind in tags if kind})
        if not kinds:
            raise ValueError(f"names must hold a tag such as B-person, got {list(names)}")
        numbers = {"": OUTSIDE, **{kind: number for number, kind in enumerate(kinds)}}
        types = torch.tensor([numbers[kind] for _, kind in tags])
        begins = torch.tensor([prefix == "B" for prefix, _ in tags])
        self.register_buffer("types", types, persistent=False)
        self.register_buffer("begins", begins, persistent=False)
        for name in ("correct", "found", "present", "words"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Count a batch of texts.

        Args:
            preds: (b, l) int64 classes, or (b, l, c) logits of any floating type.
            target: (b, l) int64 classes, ``UNLABELLED`` where no word begins: what stands there is
                no part of the text.

        Raises:
            ValueError: the shapes do not fit each other, or a class has no name.
        """
        chosen = preds.argmax(-1) if preds.is_floating_point() else preds
        if chosen.shape != target.shape or target.ndim != 2:
            raise ValueError(
                "preds and target must be (texts, tokens), preds with an axis of classes behind if "
                f"they are logits, got {tuple(preds.shape)} and {tuple(target.shape)}"
            )
        known = target != UNLABELLED
        # Texts one after the other, words only.
        text = known.nonzero()[:, 0]
        guessed, true = self._entities(chosen[known], text), self._entities(target[known], text)
        both = guessed.begins & true.begins & (guessed.types == true.types)
        self.correct = self.correct + (both & (guessed.ends == true.ends)).sum()
        self.found = self.found + guessed.begins.sum()
        self.present = self.present + true.begins.sum()
        self.words = self.words + len(text)

    def compute(self) -> dict[str, Tensor]:
        """``precision``, ``recall`` and ``f1`` so far, scalars in [0, 1]."""
        none = self.words == 0
        values = {
            "precision": self.correct / self.found.clamp(min=1),
            "recall": self.correct / self.present.clamp(min=1),
            # The harmonic mean of the two.
            "f1": 2 * self.correct / (self.found + self.present).clamp(min=1),
        }
        return {name: value.masked_fill(none, torch.nan) for name, value in values.items()}

    def _entities(self, tags: Tensor, text: Tensor) -> _Entities:
        """The entities of some words, (n,) classes; ``text`` (n,) says to which text each belongs.

        Raises:
            ValueError: a class has no name.
        """
        if len(tags) and not 0 <= int(tags.min()) <= int(tags.max()) < len(self.types):
            raise ValueError(
                f"classes must be in 0..{len(self.types) - 1}, as there are names, "
                f"got {int(tags.min())}..{int(tags.max())}"
            )
        types = self.types[tags]
        inside = types != OUTSIDE
        goes_on = torch.zeros_like(inside)
        goes_on[1:] = (types[1:] == types[:-1]) & (text[1:] == text[:-1])
        goes_on &= ~self.begins[tags]
        begins = inside & ~goes_on
        last = inside.clone()
        last[:-1] &= ~(inside[1:] & goes_on[1:])
        ends = torch.zeros_like(tags)
        # Entities do not overlap: the first end belongs to the first beginning, and so on.
        ends[begins] = last.nonzero()[:, 0]
        return _Entities(begins, ends, types)


def cut_texts(batch: Batch) -> Tensor:
    """How many texts in words, as far as the inputs tell, have more words than places; int64."""
    if batch.places is None or not isinstance(batch.inputs, Tokens):
        return torch.zeros_like(batch.index[0])
    text = batch.inputs.text
    words = (text == SEPARATOR).sum(1) + (text != 0).any(1)
    return (words > batch.places.sum(1)).sum()


class _Entities(NamedTuple):
    """Entities by the word with which they begin.

    Attributes:
        begins: (n,) bool, whether one begins with this word.
        ends: (n,) int64, the number of its last word.
        types: (n,) int64, what each word is part of.
    """

    begins: Tensor
    ends: Tensor
    types: Tensor


def _parsed(name: str) -> tuple[str, str]:
    """The prefix and the type of a tag; the type of ``O`` is empty."""
    prefix, separator, kind = name.partition("-")
    if name == "O" or (prefix in ("B", "I") and separator and kind):
        return prefix, kind
    raise ValueError(f"names must be O, B-TYPE or I-TYPE, got {name!r}")
