"""Only the best teacher."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ensemble_kd.errors import UserError
from ensemble_kd.functional import spread
from ensemble_kd.types import Batch, Output, Progress
from ensemble_kd.weightings.weighting import Weighting


class Best(Weighting):
    """One for the teacher of the highest validation accuracy, the first of them if several have it.

    What a single teacher would give, if it were known beforehand which: the control that says what
    the others add.

    Args:
        accuracies: one per teacher, on the validation split; whoever builds the stage gives them by
            ``measure`` if they are not known yet.

    Raises:
        ValueError: an accuracy is not in [0, 1].
    """

    def __init__(self, accuracies: Sequence[float] | None = None) -> None:
        super().__init__()
        self.needs_accuracies = accuracies is None
        self.accuracies: tuple[float, ...] | None = None
        if accuracies is not None:
            self.measure(accuracies)

    def measure(self, accuracies: Sequence[float]) -> None:
        """Hear the validation accuracies of the teachers, in their order."""
        given = tuple(float(accuracy) for accuracy in accuracies)
        if not all(0 <= accuracy <= 1 for accuracy in given):
            raise ValueError(f"accuracies must be in [0, 1], got {list(given)}")
        self.accuracies = given

    def forward(
        self, teachers: tuple[Output, ...], student: Output, batch: Batch, progress: Progress
    ) -> Tensor:
        """(m, *), one for the best teacher and zero for the others.

        Raises:
            UserError: the accuracies were never given, or not one per teacher.
        """
        weights = torch.zeros(len(teachers))
        if teachers:
            if self.accuracies is None:
                raise UserError(
                    "the weighting Best needs the validation accuracy of each teacher, got none; "
                    "give them as accuracies=[...] or by measure()"
                )
            if len(self.accuracies) != len(teachers):
                raise UserError(
                    f"weighting: accuracies must name one accuracy per teacher, "
                    f"got {len(self.accuracies)} for {len(teachers)} teachers"
                )
            weights[self.accuracies.index(max(self.accuracies))] = 1
        return spread(weights, student.logits)
