"""The teachers of a stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
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

    @classmethod
    def check(cls, batch: Batch) -> None:
        """See that such teachers can be heard on this data.

        Called once for each stage, before anything is trained.

        Args:
            batch: a few samples of the training data.

        Raises:
            ValueError: they cannot.
        """

    def stay(self, home: torch.device) -> None:
        """Live on a device of their own: see ``Frozen.stay``."""
        for part in self.modules():
            if isinstance(part, Frozen):
                part.stay(home)

    def study(self, batches: Callable[[], Iterator[Batch]]) -> None:
        """Look at the training data before training.

        Called once for each stage, before the objectives' own ``study`` and before the first batch;
        not when trained weights are restored.

        Args:
            batches: each call gives one pass over the training data, on the teachers' device.
        """

    def forward(self, batch: Batch, progress: Progress) -> tuple[Output, ...]:
        """What each teacher says of the batch: m outputs, without gradient."""
        said = zip(self.teachers, self.own(batch), strict=True)
        return tuple(teacher.translated(own) for teacher, own in said)

    def own(self, batch: Batch) -> tuple[Output, ...]:
        """What each network itself says of a batch, in its own classes."""
        return tuple(teacher.own_answer(batch) for teacher in self.teachers)
