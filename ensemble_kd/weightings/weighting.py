"""What a weighting is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from ensemble_kd.types import UNLABELLED, Batch, Output, Progress


class Weighting(nn.Module, ABC):
    """How much each teacher counts, for each sample.

    Subclasses write ``forward``. The other methods do nothing unless a weighting needs them, so
    that whoever uses a weighting can treat all of them alike.

    A weighting holds nothing that one batch leaves behind for the next: what is random is a
    function of a seed and of ``progress.step``, so that a resumed run continues like one that was
    not stopped.

    Attributes:
        needs_labels: the weights are computed from labels, so every sample must have one.
        needs_accuracies: ``measure`` must be called before the first batch.
        learns_afterwards: ``afterwards`` gives losses, and the parameters are stepped on them
            alone.
    """

    needs_labels: bool = False
    needs_accuracies: bool = False
    learns_afterwards: bool = False

    @abstractmethod
    def forward(
        self, teachers: tuple[Output, ...], student: Output, batch: Batch, progress: Progress
    ) -> Tensor:
        """Weights of the teachers.

        Nothing flows back into the teachers or the student. Where the weighting has parameters that
        learn together with the student, the weights carry their graph.

        Args:
            teachers: m outputs, logits (*, c) each.
            student: logits (*, c) of the network that learns.
            batch: the batch that all of them saw.
            progress: how far the stage has come.

        Returns:
            (m, *) float32 or wider, >= 0, for each sample summing to one over m, or to zero where
            no teacher should speak; (0, *) without teachers.

        Raises:
            ValueError: the weighting needs labels and one of them is ``UNLABELLED``.
        """

    def measure(self, accuracies: Sequence[float]) -> None:
        """Hear how good the teachers are, before training and again before it is resumed.

        Args:
            accuracies: one per teacher, in their order, on the validation split.
        """

    def afterwards(
        self,
        weights: Tensor,
        teachers: tuple[Output, ...],
        before: Output,
        after: Output,
        batch: Batch,
        progress: Progress,
    ) -> dict[str, Tensor]:
        """Losses that judge the weights by what they did to the student.

        A weighting that ``learns_afterwards`` is a player of its own: when the student has been
        stepped, it runs on the batch once more and these terms are the next turn.

        Args:
            weights: (m, *), what ``forward`` returned for this batch.
            teachers: m outputs, as given to ``forward``.
            before: the student's output before its step.
            after: its output on the same batch after the step, without gradient.
            batch: the batch.
            progress: how far the stage has come.

        Returns:
            Scalars by name.
        """
        return {}

    def measurements(self, weights: Tensor) -> dict[str, Tensor]:
        """What is worth logging about the weights of a batch, as means over its samples.

        Args:
            weights: (m, *), what ``forward`` returned for this batch.

        Returns:
            Scalars by name, without gradient.
        """
        return {}


def known_labels(batch: Batch, weighting: Weighting) -> Tensor:
    """The targets of a batch that must all be labels.

    Args:
        batch: the batch.
        weighting: who needs them, for the message.

    Returns:
        (*,) int64.

    Raises:
        ValueError: a target is ``UNLABELLED``.
    """
    missing = int((batch.target == UNLABELLED).sum())
    if missing:
        raise ValueError(
            f"the weighting {type(weighting).__name__} needs a label for every sample, "
            f"got {missing} of {batch.target.numel()} without one"
        )
    return batch.target
