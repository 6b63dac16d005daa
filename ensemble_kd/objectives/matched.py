"""Features of the student against features of its teachers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from ensemble_kd.objectives.balanced import Balance, Balanced, checked_balance
from ensemble_kd.objectives.comparison import Comparison, JointComparison, Passes, Studied
from ensemble_kd.objectives.layers import Layers
from ensemble_kd.objectives.material import Material
from ensemble_kd.objectives.objective import Objective
from ensemble_kd.objectives.side_by_side import side_by_side
from ensemble_kd.objectives.tokens import of_samples, token_mask
from ensemble_kd.types import Batch, Output, Progress


class Matched(Objective):
    """Each teacher's features are compared with the student's.

    For a sample, sum_k w_k c_k: w the weights of the teachers and c_k what the comparison made for
    teacher k. A comparison of pairs goes layer by layer, c_k = sum_j f_j c_kj(s_j, t_kj) with s_j
    and t_kj the features at the j-th layer of the student and of teacher k and f_j a factor; a
    joint one sees all layers at once. So teachers may differ in depth and width; what is learned,
    is learned for each teacher.

    With ``together`` the features of all teachers at a layer are put side by side, see
    ``side_by_side``, and the student is compared with the whole: sum_k w_k c. The weights then say
    whether a sample counts, not whom it hears. Of sequences with a class per token, the weight of a
    sample is the mean of those of its places.

    The gradient reaches the student up to its layers, and what the comparisons learn; through the
    weights it reaches a weighting that is learned. Teachers receive none.

    Args:
        comparison: how features are compared.
        student: layers of the student, as ``networks.taps`` names them.
        teachers: layers of the teachers: one list for all of them, or a list for each; for pairs,
            as many as the student's and in the same order.
        factors: how much each pair of layers counts, >= 0; ones if not given.
        balance: how the features of each teacher are standardised before they are compared, so that
            no teacher's scale dominates: ``variance`` or ``phi_s``, as ``Balanced`` has it; not at
            all if not given.
        together: compare with all teachers at once, in place of each for itself.

    Raises:
        ValueError: the lists do not fit each other, or a factor is out of range or without a pair,
            or there is no such balance, or none for what compares tokens without their padding.
    """

    def __init__(
        self,
        comparison: Comparison | JointComparison,
        student: Sequence[str],
        teachers: Sequence[str] | Sequence[Sequence[str]],
        factors: Sequence[float] | None = None,
        balance: Balance | None = None,
        together: bool = False,
    ) -> None:
        super().__init__()
        self.comparison = comparison
        self.balance = checked_balance(balance)
        if balance is not None and comparison.needs_mask:
            raise ValueError(
                f"balance must be null for {type(comparison).__name__}, which leaves padding out, "
                f"got {balance!r}"
            )
        self.together = together
        self.layers = Layers(student, teachers)
        if isinstance(comparison, JointComparison):
            if factors is not None:
                raise ValueError(
                    f"factors must be null where layers are compared jointly, got {list(factors)}"
                )
        else:
            self.layers.check_pairs()
        count = len(self.layers.student)
        self.factors = (1.0,) * count if factors is None else tuple(factors)
        if len(self.factors) != count or not all(f >= 0 for f in self.factors):
            raise ValueError(f"factors must be {count} numbers >= 0, got {list(self.factors)}")
        self.pairs = nn.ModuleList()
        self.met = 0
        self.compares_tokens = comparison.needs_mask

    def student_taps(self) -> tuple[str, ...]:
        """The layers of the student."""
        return self.layers.student

    def teacher_taps(self, number: int) -> tuple[str, ...]:
        """The layers of one teacher.

        Raises:
            ValueError: there are lists for fewer teachers.
        """
        return self.layers.of_teacher(number)

    def meet(self, student: Output, teachers: tuple[Output, ...]) -> None:
        """Make the comparisons with all teachers."""
        self.layers.check_count(len(teachers))
        self.met = len(teachers)
        own = self._of_student(student)
        self.pairs = nn.ModuleList(
            self._compared(own, other) for other in self._of_teachers(teachers)
        )

    def study(self, material: Material) -> None:
        """Let each comparison that wants it look at its teacher."""
        for number, pair in enumerate(self.pairs):
            if isinstance(pair, Studied):
                pair.study(partial(self._passes, material, number))

    def studies_teachers(self) -> bool:
        """Whether a comparison looks at its teacher before training."""
        parts = (part for part in self.pairs.modules() if not isinstance(part, LayerByLayer))
        return any(isinstance(part, Studied) for part in parts)

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
        if self.met != len(teachers) or not teachers:
            raise ValueError(
                f"features are compared with those of the {self.met} frozen teachers that "
                f"were met, got {len(teachers)} voices: this strategy cannot use them"
            )
        missing = [layer for layer in self.layers.student if layer not in student.features]
        if missing:
            raise ValueError(f"the student gave no feature {missing[0]!r} under this strategy")
        own = self._of_student(student)
        heard = self._of_teachers(teachers)
        mask = (token_mask(batch, own[0]),) if self.comparison.needs_mask else ()
        values = torch.stack(
            [pair(own, other, *mask) for pair, other in zip(self.pairs, heard, strict=True)]
        )
        weights = of_samples(weights, batch)
        if weights.shape != (len(teachers), *values.shape[1:]):
            raise ValueError(
                "weights must have the shape (teachers, samples) "
                f"{(len(teachers), *values.shape[1:])}, got {tuple(weights.shape)}"
            )
        # What all teachers say together counts as much as all of them: one value, many weights.
        return (weights * values).sum(dim=0)

    def _passes(self, material: Material, number: int) -> Iterator[tuple[Tensor, ...]]:
        """The features that one comparison sees, batch by batch."""
        if not self.together:
            return (self._of_teacher(said, number) for said in material.said(number))
        passes = (material.said(each) for each in range(self.met))
        return (self._of_teachers(said)[0] for said in zip(*passes, strict=True))

    def _of_teachers(self, teachers: Sequence[Output]) -> list[tuple[Tensor, ...]]:
        """What each comparison sees: the features of one teacher, or of all side by side."""
        each = [self._of_teacher(said, number) for number, said in enumerate(teachers)]
        return [tuple(map(side_by_side, zip(*each, strict=True)))] if self.together else each

    def _compared(self, own: Sequence[Tensor], other: Sequence[Tensor]) -> nn.Module:
        compared = self._comparison(own, other)
        return Balanced(compared, other, self.balance) if self.balance else compared

    def _comparison(self, own: Sequence[Tensor], other: Sequence[Tensor]) -> nn.Module:
        if isinstance(self.comparison, JointComparison):
            return self.comparison.across(own, other)
        pairs = [self.comparison.between(s, t) for s, t in zip(own, other, strict=True)]
        return LayerByLayer(pairs, self.factors)

    def _of_student(self, said: Output) -> tuple[Tensor, ...]:
        return tuple(said.features[layer] for layer in self.layers.student)

    def _of_teacher(self, said: Output, number: int) -> tuple[Tensor, ...]:
        return tuple(said.features[layer] for layer in self.layers.of_teacher(number))


class LayerByLayer(Studied):
    """sum_j f_j c_j(s_j, t_j) over pairs of layers.

    Args:
        pairs: the comparison of each pair of layers.
        factors: how much each counts.
    """

    def __init__(self, pairs: Sequence[nn.Module], factors: Sequence[float]) -> None:
        super().__init__()
        self.pairs = nn.ModuleList(pairs)
        self.factors = tuple(factors)

    def study(self, passes: Passes) -> None:
        """Let each pair that wants it look at its feature of the teacher."""
        for number, pair in enumerate(self.pairs):
            if isinstance(pair, Studied):
                pair.study(partial(_one_of, passes, number))

    def forward(
        self, students: Sequence[Tensor], teachers: Sequence[Tensor], *mask: Tensor
    ) -> Tensor:
        """(b,) the weighted sum over the pairs, each of which sees the mask if there is one."""
        values = [
            factor * pair(own, other, *mask)
            for factor, pair, own, other in zip(
                self.factors, self.pairs, students, teachers, strict=True
            )
        ]
        return torch.stack(values).sum(dim=0)


def _one_of(passes: Passes, number: int) -> Iterator[tuple[Tensor, ...]]:
    return ((features[number],) for features in passes())
