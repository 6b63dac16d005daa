"""How features of the student are held against features of a teacher."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

from torch import Tensor, nn

Passes = Callable[[], Iterator[tuple[Tensor, ...]]]
"""A pass over the training data: for each batch, a teacher's features at the compared layers."""


class Comparison(ABC):
    """A way to compare two features: it makes a module for each pair that is compared.

    The module takes the student's feature (b, ...) and the teacher's (b, ...), the latter without
    gradient, and gives one value per sample (b,). Whatever it learns (a connector, a variance) is
    its own, so that no two teachers and no two layers share it. A value that belongs to the batch
    as a whole, such as a distance of two Gram matrices, is given as the share of each sample.

    Attributes:
        needs_mask: the module takes a third argument, (b, l) bool, true at the tokens of a text
            that are no padding.
    """

    needs_mask: bool = False

    @abstractmethod
    def between(self, student: Tensor, teacher: Tensor) -> nn.Module:
        """The module for features like these two.

        Args:
            student: a feature of the student, for its shape.
            teacher: a feature of the teacher, for its shape.

        Raises:
            ValueError: features of these shapes cannot be compared in this way.
        """


class JointComparison(ABC):
    """A way to compare all chosen layers of the student with all of a teacher's at once.

    The module takes two sequences of features, (b, ...) each, those of the teacher without
    gradient, and gives one value per sample (b,). The networks need not be tapped at equally many
    layers, unless the comparison says so.

    Attributes:
        needs_mask: as in ``Comparison``.
    """

    needs_mask: bool = False

    @abstractmethod
    def across(self, students: Sequence[Tensor], teachers: Sequence[Tensor]) -> nn.Module:
        """The module for features like these.

        Args:
            students: the features of the student, in the order of its layers, for their shapes.
            teachers: those of the teacher, in the order of its layers.

        Raises:
            ValueError: such features cannot be compared in this way.
        """


class Studied(nn.Module, ABC):
    """A module of a comparison that looks at the teacher before anything is trained.

    What it finds out is kept in buffers, or in parameters that require no gradient.
    """

    @abstractmethod
    def study(self, passes: Passes) -> None:
        """Look at the teacher's features on the training data, as often as needed.

        Args:
            passes: each call gives one pass, batch by batch, without gradient. Of a comparison of
                two features, each batch has one feature of the teacher.
        """
