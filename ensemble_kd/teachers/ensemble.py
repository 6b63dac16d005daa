"""The teachers of a stage."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ensemble_kd.teachers.frozen import Frozen
from ensemble_kd.types import Batch, Output, Progress


class Ensemble(nn.Module):
    """Teachers that all see the same batch; there may be none.

    Args:
        teachers: the frozen networks, in the order in which weights and names refer to them.
    """

    def __init__(self, teachers: Sequence[Frozen] = ()) -> None:
        super().__init__()
        self.members = nn.ModuleList(teachers)
        self.teachers = tuple(teachers)

    def __len__(self) -> int:
        return len(self.members)

    def forward(self, batch: Batch, progress: Progress) -> tuple[Output, ...]:
        """What each teacher says of the batch: m outputs, without gradient."""
        said = zip(self.teachers, self.own(batch), strict=True)
        return tuple(teacher.translated(own) for teacher, own in said)

    def own(self, batch: Batch) -> tuple[Output, ...]:
        """What each network itself says of a batch, in its own classes."""
        return tuple(teacher.own_answer(batch) for teacher in self.teachers)
