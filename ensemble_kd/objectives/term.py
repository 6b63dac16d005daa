"""From a value per sample to a weighted scalar: the only place where that happens."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ensemble_kd.functional import uncast, wide, widened
from ensemble_kd.objectives.objective import Objective
from ensemble_kd.schedules import Constant, Schedule
from ensemble_kd.types import Batch, Output, Progress


class Term(nn.Module):
    """An objective with its weight and its schedule: one named entry of a loss.

    The scalar is ``weight * schedule(fraction) * mean``, the mean being taken over the labelled
    samples for an objective that needs labels and over all samples otherwise; of sequences, over
    the places where there is something to predict (``Batch.places``) and not over padding, if the
    objective has a value for each place. Where the batch says
    how many labels and places it counts for (``Batch.labels``, ``Batch.placed``), the sum is
    divided by that: an optimiser step of several batches is then the mean over all of their
    labelled samples, or of their places, and not a mean of means. A batch in which no
    sample counts gives zero, with zero gradient. A weight of zero gives zero too, but keeps the
    graph: whatever is learned inside the objective then receives zeros and not nothing.

    Under mixed precision only networks are computed in half: the objective sees logits, features
    and weights in float32, and autocast is off around it.

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
        # Here and not in each objective: all pass this way, also those that users write, and what
        # an objective learns (a connector, say) is computed like the rest of it.
        with uncast(student.logits):
            values: Tensor = self.objective(
                widened(student), tuple(map(widened, teachers)), wide(weights), batch, progress
            )
        strength = self.weight * self.schedule(progress.fraction)
        if not self.objective.needs_labels or batch.mask is None:
            if batch.places is not None and values.shape == batch.places.shape:
                said = torch.where(batch.places, values, values.new_zeros(()))
                if batch.placed is not None:
                    # Zero only where no batch of the step has a place.
                    return _times(strength / (batch.placed * len(said) or 1.0), said.sum())
                return _times(strength, said.sum() / batch.places.sum().clamp(min=1))
            return _times(strength, values.mean() if values.numel() else values.sum())
        if batch.mask.shape != values.shape:
            # Broadcasting would silently pair the wrong samples.
            raise ValueError(
                f"mask must have the shape of the objective's values {tuple(values.shape)}, "
                f"got {tuple(batch.mask.shape)}"
            )
        # where() and not a product: inf or NaN on an unlabelled sample must not count.
        counted = torch.where(batch.mask, values, values.new_zeros(()))
        if batch.labels is not None:
            # Zero only where no batch of the step has a label.
            return _times(strength / (batch.labels or 1.0), counted.sum())
        return _times(strength, counted.sum() / batch.mask.sum().clamp(min=1))


def _times(strength: float, value: Tensor) -> Tensor:
    """The product; the value itself where that is the same, which saves a step on the way back."""
    return value if strength == 1 else strength * value
