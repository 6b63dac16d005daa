"""The values that travel between the parts, all of them NamedTuples and therefore pytrees.

Axes, here and everywhere: m teachers or peers, b batch, l tokens, c classes, d features;
``*`` stands for ``b`` or ``b l``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

UNLABELLED = -100
"""The target of a sample whose label is not known: cross-entropy skips it, indexing fails."""

NEVER = -1e30
"""The logit of a class that is known not to be the one, though a teacher never learned it: its
probability is zero. A class of which a teacher says nothing at all has the logit -inf."""

SPOKEN = NEVER / 2
"""Logits above this one are what a teacher says of a class that it knows."""

NOTHING: Mapping[str, Tensor] = MappingProxyType({})


class Tokens(NamedTuple):
    """Texts, as the inputs of a batch.

    Attributes:
        ids: (b, l) int64, numbers of the tokens, padded behind to the length of the data.
        mask: (b, l) bool, true at tokens, false at padding.
        kinds: (b, l) int64, 0 in the first text of a pair and 1 in the second.
        text: (b, n) uint8, the text itself in UTF-8 with zeros behind, for networks that read with
            a tokenizer of their own; the parts of a pair, or the words of a text whose words have
            labels, with ``SEPARATOR`` between them.
    """

    ids: Tensor
    mask: Tensor
    kinds: Tensor
    text: Tensor


SEPARATOR = 0x1F
"""The byte between the parts of a text, which is no part of any text."""


class Batch(NamedTuple):
    """What a dataloader yields.

    Attributes:
        inputs: whatever the networks take, a tensor or a pytree of tensors such as ``Tokens``; the
            first axis of each is b.
        target: (*,) int64, the class of each sample, ``UNLABELLED`` where it is not known.
        index: (b,) int64, the stable number of each sample in its data set.
        mask: (*,) bool, true where ``target`` is a label; None when every sample is labelled.
        views: further augmentations of the same samples, each like ``inputs``; only as many as the
            strategy asks for, and only in training.
        view: (b,) int64, which of a sample's recurring views ``inputs`` is: index and view together
            say what the inputs are. None where views do not recur.
        labels: how many labels a mean over the labelled samples divides by, where the batch is a
            part of an optimiser step that accumulates several batches or is shared by processes:
            the size of the batch times the labels per sample in the whole step. None for those of
            the batch itself.
        weight: factor on the loss in such a step, of which the trainer takes the mean as if all its
            batches were there and of one size; at the end of an epoch they may not be. None for 1.
        places: (b, l) bool, of samples that are sequences: where there is something to predict,
            labelled or not, and not padding. None where every entry of ``target`` is such a place.
        placed: places per sample in the whole step, where the batch is a part of one: a mean over
            places divides by that times the size of the batch. None for those of the batch itself.
    """

    inputs: Any
    target: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    mask: Tensor | None = None
    views: tuple[Any, ...] = ()
    view: Tensor | None = None
    labels: float | None = None
    weight: float | None = None
    places: Tensor | None = None
    placed: float | None = None


class Output(NamedTuple):
    """What a network says of a batch.

    Attributes:
        logits: (*, c) unnormalised log-probabilities.
        features: intermediate tensors by module path; empty unless somebody asked for them.
        groups: (*, c) int64, of a teacher with classes of its own: the number of the one that
            covers each class of the student, -1 where it knows none; those logits are -inf. None
            when all classes are the student's.
    """

    logits: Tensor
    features: Mapping[str, Tensor] = NOTHING
    groups: Tensor | None = None


class Progress(NamedTuple):
    """How far a stage has come.

    Attributes:
        step: optimiser steps before that of this batch; batches that are accumulated for one step
            share it. Where several players take turns, all moves of a batch are one step.
        epoch: epochs finished before this one.
        fraction: ``step`` divided by the number of steps of the stage, in [0, 1].
    """

    step: int
    epoch: int
    fraction: float


class Turn(NamedTuple):
    """One player's move: the loss terms, by name, that this player descends.

    Attributes:
        player: a key of ``Strategy.players``.
        terms: scalars that already carry their weight; the player descends their sum.
        measured: scalars that are only logged, such as how often a gate was open.
    """

    player: str
    terms: dict[str, Tensor]
    measured: Mapping[str, Tensor] = NOTHING


def as_output(said: Any) -> Output:
    """Read what a network returned: an ``Output``, logits, or an object with ``.logits``.

    Raises:
        TypeError: the network returned something that holds no logits.
    """
    if isinstance(said, Output):
        return said
    if isinstance(said, Tensor):
        return Output(said)
    logits = getattr(said, "logits", None)
    if isinstance(logits, Tensor):
        return Output(logits)
    raise TypeError(
        f"a network must return logits (a tensor, an Output or an object with .logits), "
        f"got {type(said).__name__}"
    )


def labelled(batch: Batch) -> Tensor:
    """The samples of a batch whose label is known, (*,) bool."""
    if batch.mask is not None:
        return batch.mask
    return torch.ones_like(batch.target, dtype=torch.bool)
