"""From a value per sample to a weighted scalar: the only place where that happens."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ensemble_kd.objectives.objective import Objective
from ensemble_kd.schedules import Constant, Schedule
from ensemble_kd.types import Batch, Output, Progress


class Term(nn.Module):
    """An objective with its weight and its schedule: one named entry of a loss.

    The scalar is ``weight * schedule(fraction) * mean``, the mean being taken over the labelled
    samples for an objective that needs labels and over all samples otherwise. A batch in which no
    sample counts gives zero, with zero gradient. A weight of zero gives zero too, but keeps the
    graph: whatever is learned inside the objective then receives zeros and not nothing.

    Args:
        objective: what is matched.
        weight: how strongly, >= 0.
        schedule: when; a factor as a function of the stage's progress.

    Raises:
        ValueError: the weight is negative or not finite.
    """

    def __init__(
        self, objective: Objective, weight: float = 1.0, schedule: Schedule | None = None
    ) -> None:
        super().__init__()
        if not (weight >= 0 and math.isfinite(weight)):
            raise ValueError(f"weight must be a finite number >= 0, got {weight}")
        self.objective = objective
        self.weight = weight
        self.schedule = schedule or Constant()

    def forward(
        self,
        student: Output,
        teachers: tuple[Output, ...],
        weights: Tensor,
        batch: Batch,
        progress: Progress,
    ) -> Tensor:
        """The weighted mean over the samples that count, a scalar with gradient.

        Raises:
            ValueError: the objective needs labels and the mask is not one entry per value.
        """
        values: Tensor = self.objective(student, teachers, weights, batch, progress)
        strength = self.weight * self.schedule(progress.fraction)
        if not self.objective.needs_labels or batch.mask is None:
            return strength * values.sum() / max(values.numel(), 1)
        if batch.mask.shape != values.shape:
            # Broadcasting would silently pair the wrong samples.
            raise ValueError(
                f"mask must have the shape of the objective's values {tuple(values.shape)}, "
                f"got {tuple(batch.mask.shape)}"
            )
        # where() and not a product: inf or NaN on an unlabelled sample must not count.
        counted = torch.where(batch.mask, values, values.new_zeros(()))
        return strength * counted.sum() / batch.mask.sum().clamp(min=1)
