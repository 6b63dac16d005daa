"""Distillation without a better network: the student's own earlier self, or nobody at all."""

from __future__ import annotations

from typing import Literal, get_args

from ensemble_kd.build import Node
from ensemble_kd.stage import Stage
from ensemble_kd.strategies.born_again import BornAgain

Variant = Literal["self", "virtual"]


class TeacherFree:
    """Who teaches where there is no teacher.

    Source: Yuan et al., Revisiting Knowledge Distillation via Label Smoothing Regularization (arXiv
    1909.11723). Tf-KD_self: the network is trained, and teaches the same network from new weights.
    Tf-KD_reg: the teacher is made by hand, as ``ensemble_kd.objectives.Virtual``. The paper's two
    other experiments, a small teacher of a large student and a teacher that is hardly trained, are
    ordinary distillation: ``experiment=reversed_kd`` and ``experiment=defective_kd``.

    Args:
        first: the strategy of the network that becomes its own teacher, as a node.
        variant: ``self``, or ``virtual`` for one stage without any network that teaches.

    Raises:
        ValueError: no such variant.
    """

    def __init__(self, first: Node, variant: Variant = "self") -> None:
        if variant not in get_args(Variant):
            raise ValueError(
                f"variant must be one of {', '.join(get_args(Variant))}, got {variant!r}"
            )
        self.own = BornAgain(first, generations=1)
        self.variant = variant

    def stages(self, last: Stage) -> tuple[Stage, ...]:
        """``generation/0`` and the student, or the student only."""
        return self.own.stages(last) if self.variant == "self" else (last,)
