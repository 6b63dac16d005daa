"""Features of the student against features of its teachers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from ensemble_kd.objectives.comparison import Comparison
from ensemble_kd.objectives.objective import Objective
from ensemble_kd.types import Batch, Output, Progress


class Matched(Objective):
    """Each teacher's features are compared with the student's, layer by layer.

    For a sample, sum_k w_k sum_j f_j c_kj(s_j, t_kj): w the weights of the teachers, s_j and t_kj
    the features at the j-th layer of the student and of teacher k, f_j a factor, and c_kj what the
    comparison made for this pair. So teachers may differ in depth and width; what the comparison
    learns, it learns for each teacher.

    The gradient reaches the student up to its layers, and what the comparisons learn; through the
    weights it reaches a weighting that is learned. Teachers receive none.

    Args:
        comparison: how two features are compared.
        student: layers of the student, as ``networks.taps`` names them.
        teachers: layers of the teachers in the same order, as many: one list for all of them, or a
            list for each.
        factors: how much each layer counts, >= 0; ones if not given.

    Raises:
        ValueError: the lists do not fit each other, or a factor is out of range.
    """

    def __init__(
        self,
        comparison: Comparison,
        student: Sequence[str],
        teachers: Sequence[str] | Sequence[Sequence[str]],
        factors: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.comparison = comparison
        self.student = tuple(student)
        shared = [layer for layer in teachers if isinstance(layer, str)]
        self.one_for_all = len(shared) == len(teachers)
        self.teachers: tuple[tuple[str, ...], ...] = (
            (tuple(shared),) if self.one_for_all else tuple(tuple(layers) for layers in teachers)
        )
        self.factors = tuple(1.0 for _ in self.student) if factors is None else tuple(factors)
        if not self.student:
            raise ValueError("student must name at least one layer, got none")
        for layers in self.teachers:
            if len(layers) != len(self.student):
                raise ValueError(
                    f"teachers must name {len(self.student)} layers like the student, got {layers}"
                )
        if len(self.factors) != len(self.student) or not all(f >= 0 for f in self.factors):
            raise ValueError(
                f"factors must be {len(self.student)} numbers >= 0, got {list(self.factors)}"
            )
        self.pairs = nn.ModuleList()

    def student_taps(self) -> tuple[str, ...]:
        """The layers of the student."""
        return self.student

    def teacher_taps(self, number: int) -> tuple[str, ...]:
        """The layers of one teacher.

        Raises:
            ValueError: there are lists for fewer teachers.
        """
        if self.one_for_all:
            return self.teachers[0]
        if number >= len(self.teachers):
            raise ValueError(
                f"teachers must be a list of layers for each teacher, got {len(self.teachers)} "
                f"lists and a teacher/{number}"
            )
        return self.teachers[number]

    def meet(self, student: Output, teachers: tuple[Output, ...]) -> None:
        """Make the comparisons of all pairs."""
        if not self.one_for_all and len(self.teachers) != len(teachers):
            raise ValueError(
                f"teachers must be a list of layers for each of {len(teachers)} teachers, "
                f"got {len(self.teachers)}"
            )
        self.pairs = nn.ModuleList(
            nn.ModuleList(
                self.comparison.between(student.features[own], teacher.features[other])
                for own, other in zip(self.student, self.teacher_taps(number), strict=True)
            )
            for number, teacher in enumerate(teachers)
        )

    def forward(
        self,
        student: Output,
        teachers: tuple[Output, ...],
        weights: Tensor,
        batch: Batch,
        progress: Progress,
    ) -> Tensor:
        """(b,) the weighted sum over teachers and layers.

        Raises:
            ValueError: the teachers are not those that were met, or a network gave no features:
                the strategy lets others speak than its frozen teachers.
        """
        if len(self.pairs) != len(teachers) or not teachers:
            raise ValueError(
                f"features are compared with those of the {len(self.pairs)} frozen teachers that "
                f"were met, got {len(teachers)} voices: this strategy cannot use them"
            )
        missing = [layer for layer in self.student if layer not in student.features]
        if missing:
            raise ValueError(f"the student gave no feature {missing[0]!r} under this strategy")
        values = [self._value(student, teacher, number) for number, teacher in enumerate(teachers)]
        together = torch.stack(values)
        if weights.shape != together.shape:
            raise ValueError(
                f"weights must have the shape (teachers, samples) {tuple(together.shape)}, "
                f"got {tuple(weights.shape)}"
            )
        return (weights * together).sum(dim=0)

    def _value(self, student: Output, teacher: Output, number: int) -> Tensor:
        """(b,) what the pairs of one teacher say together."""
        compared = [
            factor * pair(student.features[own], teacher.features[other])
            for own, other, pair, factor in zip(
                self.student,
                self.teacher_taps(number),
                cast(nn.ModuleList, self.pairs[number]),
                self.factors,
                strict=True,
            )
        ]
        return torch.stack(compared).sum(dim=0)
