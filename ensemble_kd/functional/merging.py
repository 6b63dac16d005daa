"""How several teachers become one target. docs/merging.md says which of the ways are the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ensemble_kd.functional.divergences import kl_of_logs, log_probabilities, wide
from ensemble_kd.functional.weights import normalise
from ensemble_kd.types import Output

Merge = Literal["losses", "probabilities", "logits"]


def stacked(teachers: Sequence[Output], student: Output) -> Tensor:
    """The logits of all teachers in one tensor.

    Args:
        teachers: m outputs.
        student: the output that theirs must resemble in shape.

    Returns:
        (m, *, c) in float32 or wider, without gradient; (0, *, c) without teachers.

    Raises:
        ValueError: a teacher's logits have another shape than the student's.
    """
    shape = student.logits.shape
    for number, teacher in enumerate(teachers):
        if teacher.logits.shape != shape:
            raise ValueError(
                f"the logits of teacher {number} must have the student's shape {tuple(shape)}, "
                f"got {tuple(teacher.logits.shape)}"
            )
    if not teachers:
        return wide(student.logits.new_empty(0, *shape))
    return torch.stack([wide(teacher.logits.detach()) for teacher in teachers])


def log_mean_probabilities(log_p: Tensor, weights: Tensor) -> Tensor:
    """log sum_k w_k p_k, from log-probabilities and exact where the probabilities underflow.

    Args:
        log_p: (m, *, c).
        weights: (m, *), >= 0, sums to one over m.

    Returns:
        (*, c). A teacher of weight zero neither counts nor sends gradient to its weight.
    """
    counts = weights > 0
    log_w = torch.where(counts, torch.where(counts, weights, 1.0).log(), -torch.inf)
    return torch.logsumexp(log_w.unsqueeze(-1) + log_p, dim=0)


def mean_logits(logits: Tensor, weights: Tensor) -> Tensor:
    """sum_k w_k z_k.

    Args:
        logits: (m, *, c).
        weights: (m, *), sums to one over m.

    Returns:
        (*, c).
    """
    return (weights.unsqueeze(-1) * logits).sum(dim=0)


def merged_kl(
    target_logits: Tensor,
    logits: Tensor,
    weights: Tensor,
    temperature: float = 1.0,
    merge: Merge = "losses",
) -> Tensor:
    """The divergence of one distribution from several weighted ones, without the factor T^2.

    With p^T = softmax(z / T) for the logits z, q for the student and W = sum_k w_k (one, or zero
    for a sample for which no teacher speaks):

    - ``losses``: sum_k w_k KL(p_k^T || q^T).
    - ``probabilities``: W KL(sum_k (w_k / W) p_k^T || q^T), smaller than ``losses`` by the weighted
      divergence of the teachers from their mean, which does not depend on q. Hence the same
      gradient for the student; the gradient for the weights differs.
    - ``logits``: W KL(softmax(sum_k (w_k / W) z_k / T) || q^T), another target.

    Args:
        target_logits: (m, *, c) of the teachers, m >= 1.
        logits: (*, c) of the student.
        weights: (m, *), >= 0; gradient flows back into it.
        temperature: a positive finite number.
        merge: the way, as above.

    Returns:
        (*,) one value per sample.
    """
    log_q = log_probabilities(logits, temperature)
    if merge == "losses":
        values = kl_of_logs(log_probabilities(target_logits, temperature), log_q)
        return (weights * values).sum(dim=0)
    shares = normalise(weights)
    if merge == "probabilities":
        target = log_mean_probabilities(log_probabilities(target_logits, temperature), shares)
    else:
        target = log_probabilities(mean_logits(target_logits, shares), temperature)
    return weights.sum(dim=0) * kl_of_logs(target, log_q)
