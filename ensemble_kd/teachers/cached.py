"""Teachers whose outputs were kept: a lookup in place of a forward pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ensemble_kd.teachers.ensemble import Ensemble
from ensemble_kd.teachers.frozen import Frozen
from ensemble_kd.teachers.memory import Memory
from ensemble_kd.types import NEVER, Batch, Output, Progress


class Kept(Protocol):
    """One part of what a teacher said of all recurring inputs, such as its logits."""

    def read(self, index: Tensor, view: Tensor) -> Tensor:
        """(b, ...) for samples (b,) in views (b,), both int64.

        Raises:
            UserError: a sample or a view was not kept.
        """
        ...


class Remembered(NamedTuple):
    """What one teacher said of all recurring inputs, in its own classes.

    Attributes:
        logits: (b, c) when read.
        features: by tap.
    """

    logits: Kept
    features: Mapping[str, Kept]

    def read(self, index: Tensor, view: Tensor) -> Output:
        """What it said of samples (b,) in views (b,), where ``index`` is.

        Raises:
            UserError: a sample or a view was not kept.
        """
        here = index.device
        features = {tap: kept.read(index, view).to(here) for tap, kept in self.features.items()}
        return Output(self.logits.read(index, view).to(here), features)


class Cached(Ensemble):
    """Teachers that answer from what was kept, and live where nothing was.

    A batch whose views do not recur, or that does not say which they are, is answered live. So is
    one of another size, of which a network may say something else in the last digits, and every
    batch of a teacher of which nothing was kept.

    Args:
        teachers: the frozen networks, in order.
        remembered: what each of them said; None for those that answer live.
        batch_size: of the batches in which they were asked.
        exact: whether it was kept as it was, and not in a format that drops unlikely classes.
    """

    def __init__(
        self,
        teachers: Sequence[Frozen],
        remembered: Sequence[Remembered | None],
        batch_size: int,
        exact: bool = True,
    ) -> None:
        super().__init__(teachers)
        self.remembered = tuple(remembered)
        self.batch_size = batch_size
        self.exact = exact
        self._joined = _joined(self.remembered)

    def forward(self, batch: Batch, progress: Progress) -> tuple[Output, ...]:
        """What each teacher says of the batch: m outputs, without gradient."""
        if batch.view is None or len(batch.index) != self.batch_size:
            return super().forward(batch, progress)
        if self._joined is not None:
            every = self._joined.read_all(batch.index, batch.view)
            said = [Output(logits.to(batch.index.device)) for logits in every]
            return tuple(map(self._translated, self.teachers, said))
        return tuple(
            teacher.answer(batch)
            if known is None
            else self._translated(teacher, known.read(batch.index, batch.view))
            for teacher, known in zip(self.teachers, self.remembered, strict=True)
        )

    def _translated(self, teacher: Frozen, said: Output) -> Output:
        if not self.exact:
            # What was dropped is hardly possible; it is no class of which nothing is said.
            said = said._replace(logits=said.logits.masked_fill(said.logits == -torch.inf, NEVER))
        return teacher.translated(said)


def _joined(remembered: Sequence[Remembered | None]) -> Memory | None:
    """The memory that holds the answers of exactly these teachers, in this order, if there is one.

    One look for all of them costs hardly more than one for a single teacher.
    """
    memories = [
        known.logits
        for known in remembered
        if known is not None and not known.features and isinstance(known.logits, Memory)
    ]
    if not memories or len(memories) != len(remembered):
        return None
    first = memories[0]
    same = all(memory.values is first.values for memory in memories)
    in_order = [memory.number for memory in memories] == list(range(first.values.shape[1]))
    return first if same and in_order else None
