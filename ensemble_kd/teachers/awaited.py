"""Teachers whose answers another process gives, while they are wanted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ensemble_kd.teachers.cached import Cached, Remembered
from ensemble_kd.teachers.frozen import Frozen
from ensemble_kd.teachers.growing import Growing
from ensemble_kd.types import Batch, Output, Progress


class Awaited(Cached):
    """Answers from records that another process is writing.

    What it has not come to before it writes its first, or after it has gone, is asked for here and
    written too. That is the same to the last bit, so that nothing is lost with the other process.

    Args:
        teachers: the frozen networks, in order.
        remembered: what each of them says; None for those that answer live.
        batch_size: of the batches in which they are asked.
        growing: the records among ``remembered`` that are not finished.
        feeder: runs as long as this object is there.
    """

    def __init__(
        self,
        teachers: Sequence[Frozen],
        remembered: Sequence[Remembered | None],
        batch_size: int,
        growing: Sequence[Growing],
        feeder: Any,
    ) -> None:
        super().__init__(teachers, remembered, batch_size)
        self.growing = tuple(growing)
        self.feeder = feeder

    def forward(self, batch: Batch, progress: Progress) -> tuple[Output, ...]:
        """What each teacher says of the batch: m outputs, without gradient."""
        index, view = batch.index, batch.view
        if view is None or len(index) != self.batch_size:
            return super().forward(batch, progress)
        if all(growing.there(index, view) for growing in self.growing):
            return super().forward(batch, progress)
        said = tuple(teacher.own_answer(batch) for teacher in self.teachers)
        for own, known in zip(said, self.remembered, strict=True):
            if known is not None:
                _keep(batch, own, known)
        return tuple(map(self._translated, self.teachers, said))


def _keep(batch: Batch, said: Output, known: Remembered) -> None:
    if isinstance(known.logits, Growing):
        known.logits.keep(batch, said.logits)
    for tap, kept in known.features.items():
        if isinstance(kept, Growing):
            kept.keep(batch, said.features[tap])
