"""What an objective is."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from ensemble_kd.objectives.material import Material
from ensemble_kd.types import Batch, Output, Progress


class Objective(nn.Module, ABC):
    """One thing to match, as a value per sample.

    Subclasses write ``forward``. They never reduce, mask, weight or schedule: ``Term`` does, once
    and for all of them. Teachers' outputs arrive detached; a learnable part (a connector, say) is a
    registered child, so that the player who uses the objective also trains it.

    Attributes:
        needs_labels: the value means nothing for a sample without a label; ``Term`` then averages
            over the labelled samples only.
        needs_teachers: the value means nothing without a teacher.
        compares_tokens: of texts, the student's features are compared with those of a teacher at
            the same token: they must read the same tokens.
    """

    needs_labels: bool = False
    needs_teachers: bool = True
    compares_tokens: bool = False

    def student_taps(self) -> tuple[str, ...]:
        """The features of the network that learns which this needs, as ``networks.taps`` has it."""
        return ()

    def teacher_taps(self, number: int) -> tuple[str, ...]:
        """The features of teacher ``number`` that this needs."""
        return ()

    def meet(self, student: Output, teachers: tuple[Output, ...]) -> None:
        """Make what depends on the sizes of features, such as connectors.

        Called once for each stage, before anything is trained or restored; what is drawn is drawn
        from the stage's seed.

        Args:
            student: what the network that learns says of a few samples, features included.
            teachers: what each teacher says of them.
        """

    def study(self, material: Material) -> None:
        """Look at the training data and at what the teachers say of it, before training.

        Called once for each stage, after ``meet`` and before the first batch; not when trained
        weights are restored. What is found out is kept in buffers, or in parameters that require
        no gradient.

        Args:
            material: passes over the data and the teachers' outputs.
        """

    def studies_teachers(self) -> bool:
        """Whether ``study`` looks at what the teachers say, who must then be frozen."""
        return False

    def settle(self) -> None:
        """Take into memory what the batches of a step brought, after that step.

        ``forward`` itself changes nothing that a later batch would see.
        """

    @abstractmethod
    def forward(
        self,
        student: Output,
        teachers: tuple[Output, ...],
        weights: Tensor,
        batch: Batch,
        progress: Progress,
    ) -> Tensor:
        """Value of the objective for each sample.

        ``Term`` calls it: logits, features and weights are float32 or wider, and autocast is off.

        Args:
            student: logits (*, c) of the network that learns.
            teachers: m outputs, logits (*, c) each, without gradient.
            weights: (m, *), non-negative, sums to one over m.
            batch: the batch that all of them saw.
            progress: how far the stage has come, for objectives that change over it.

        Returns:
            (*,) one value per sample, in the floating type of the computation.
        """
