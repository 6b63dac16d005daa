"""How several teachers become one target. docs/merging.md says which of the ways are the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from ensemble_kd.functional.divergences import kl_of_logs, log_probabilities, wide
from ensemble_kd.functional.weights import normalise
from ensemble_kd.types import Output

Merge = Literal["losses", "probabilities", "logits"]

Divergence = Callable[[Tensor, Tensor], Tensor]
"""From the log-probabilities of the target, (*, c) or (m, *, c), and of the student, (*, c), to a
value per sample (and teacher): (*,) or (m, *)."""


def checked_merge(merge: Merge) -> Merge:
    """The same merge.

    Raises:
        ValueError: it is not one of those that exist.
    """
    if merge not in get_args(Merge):
        raise ValueError(f"merge must be one of {', '.join(get_args(Merge))}, got {merge!r}")
    return merge


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


def teachers_logits(teachers: Sequence[Output], student: Output, weights: Tensor) -> Tensor:
    """The logits of at least one teacher in one tensor, with the weights that belong to them.

    Args:
        teachers: m >= 1 outputs.
        student: the output that theirs must resemble in shape.
        weights: (m, *), for its shape.

    Returns:
        (m, *, c) in float32 or wider, without gradient.

    Raises:
        ValueError: there is no teacher, a teacher's logits have another shape than the student's,
            or the weights are not (m, *).
    """
    if not teachers:
        raise ValueError("soft targets need at least one teacher, got none")
    logits = stacked(teachers, student)
    if weights.shape != logits.shape[:-1]:
        raise ValueError(
            f"weights must have the shape (teachers, samples) {tuple(logits.shape[:-1])}, "
            f"got {tuple(weights.shape)}"
        )
    return logits


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
    """The KL divergence of one distribution from several weighted ones, without the factor T^2.

    ``merged`` with KL(p_k^T || q^T). Here ``probabilities`` is smaller than ``losses`` by the
    weighted divergence of the teachers from their mean, which does not depend on q: the same
    gradient for the student, another one for the weights.

    Args:
        target_logits: (m, *, c) of the teachers, m >= 1.
        logits: (*, c) of the student.
        weights: (m, *), >= 0; gradient flows back into it.
        temperature: a positive finite number.
        merge: the way, as in ``merged``.

    Returns:
        (*,) one value per sample.
    """
    return merged(kl_of_logs, target_logits, logits, weights, temperature, merge)


def merged(
    divergence: Divergence,
    target_logits: Tensor,
    logits: Tensor,
    weights: Tensor,
    temperature: float = 1.0,
    merge: Merge = "losses",
) -> Tensor:
    """A divergence D of one distribution from several weighted ones.

    With p^T = softmax(z / T) for the logits z, q for the student and W = sum_k w_k (one, or zero
    for a sample for which no teacher speaks):

    - ``losses``: sum_k w_k D(p_k^T, q^T).
    - ``probabilities``: W D(sum_k (w_k / W) p_k^T, q^T).
    - ``logits``: W D(softmax(sum_k (w_k / W) z_k / T), q^T).

    Args:
        divergence: D.
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
        values = divergence(log_probabilities(target_logits, temperature), log_q)
        return (weights * values).sum(dim=0)
    shares = normalise(weights)
    if merge == "probabilities":
        target = log_mean_probabilities(log_probabilities(target_logits, temperature), shares)
    else:
        target = log_probabilities(mean_logits(target_logits, shares), temperature)
    return weights.sum(dim=0) * divergence(target, log_q)
