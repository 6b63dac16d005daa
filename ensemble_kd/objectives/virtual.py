"""A teacher that is not there: a distribution made by hand."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from ensemble_kd.functional import kl_of_logs, log_probabilities, wide
from ensemble_kd.objectives.objective import Objective
from ensemble_kd.objectives.soft import KlReduction
from ensemble_kd.schedules import Positive, Schedule
from ensemble_kd.types import UNLABELLED, Batch, Output, Progress

Softening = Literal["logits", "probabilities"]


class Virtual(Objective):
    """KL(p^d_T || p_T) with p^d = ``correct`` on the label and the rest spread evenly.

    Source: Yuan et al., Revisiting Knowledge Distillation via Label Smoothing Regularization (arXiv
    1909.11723), the regulariser of Tf-KD_reg, with a correct share of at least 0.9 and T >= 20.
    Both distributions are softened by T, p^d as softmax(log p^d / T). Like the paper's equation
    this has no factor T^2, so that its gradient is small; ``squared_temperature`` adds it.

    The released code (yuanli2333/Teacher-free-Knowledge-Distillation at d000ab3) does something
    else: it takes softmax(p^d / T) of the *probabilities*, which for T = 20 and 100 classes is
    uniform to within 5%, and leaves the student unsoftened. ``softening: probabilities`` with
    ``kl_reduction: class_mean`` is that: a penalty on confidence.

    Args:
        correct: what p^d gives to the label, in (0, 1).
        temperature: T, a positive number or a schedule of the stage's progress.
        softening: ``logits`` is the paper's form, ``probabilities`` that of the code.
        squared_temperature: multiply with T^2, as ``Soft`` does.
        kl_reduction: ``batch_mean`` is the definition, ``class_mean`` divides by the number of
            classes.

    Raises:
        ValueError: an argument is out of range.
    """

    needs_labels = True
    needs_teachers = False

    def __init__(
        self,
        correct: float = 0.99,
        temperature: float | Schedule = 20.0,
        softening: Softening = "logits",
        squared_temperature: bool = False,
        kl_reduction: KlReduction = "batch_mean",
    ) -> None:
        super().__init__()
        if not 0 < correct < 1:
            raise ValueError(f"correct must be in (0, 1), got {correct}")
        if softening not in get_args(Softening):
            raise ValueError(
                f"softening must be one of {', '.join(get_args(Softening))}, got {softening!r}"
            )
        if kl_reduction not in get_args(KlReduction):
            raise ValueError(
                f"kl_reduction must be one of {', '.join(get_args(KlReduction))}, "
                f"got {kl_reduction!r}"
            )
        self.correct = correct
        self.temperature = Positive(temperature, "temperature")
        self.softening: Softening = softening
        self.squared_temperature = squared_temperature
        self.kl_reduction: KlReduction = kl_reduction

    def forward(
        self,
        student: Output,
        teachers: tuple[Output, ...],
        weights: Tensor,
        batch: Batch,
        progress: Progress,
    ) -> Tensor:
        """(*,) divergence of each sample, zero where the target is ``UNLABELLED``."""
        temperature = self.temperature(progress.fraction)
        classes = student.logits.shape[-1]
        known = batch.target != UNLABELLED
        hot = F.one_hot(batch.target.where(known, 0), classes).bool()
        others = (1 - self.correct) / (classes - 1)
        if self.softening == "logits":
            values = (math.log(self.correct), math.log(others))
            said = log_probabilities(student.logits, temperature)
        else:
            values = (self.correct, others)
            said = log_probabilities(student.logits)
        like = wide(student.logits.detach())
        spread = torch.where(hot, like.new_tensor(values[0]), like.new_tensor(values[1]))
        divergence = kl_of_logs(log_probabilities(spread, temperature), said)
        scale = temperature**2 if self.squared_temperature else 1.0
        if self.kl_reduction == "class_mean":
            scale /= classes
        return scale * divergence.where(known, divergence.new_zeros(()))
