"""How one feature of the student is held against one feature of a teacher."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Comparison(ABC):
    """A way to compare two features: it makes a module for each pair that is compared.

    The module takes the student's feature (b, ...) and the teacher's (b, ...), the latter without
    gradient, and gives one value per sample (b,). Whatever it learns (a connector, a variance) is
    its own, so that no two teachers and no two layers share it. A value that belongs to the batch
    as a whole, such as a distance of two Gram matrices, is given as the share of each sample.
    """

    @abstractmethod
    def between(self, student: Tensor, teacher: Tensor) -> nn.Module:
        """The module for features like these two.

        Args:
            student: a feature of the student, for its shape.
            teacher: a feature of the teacher, for its shape.

        Raises:
            ValueError: features of these shapes cannot be compared in this way.
        """
