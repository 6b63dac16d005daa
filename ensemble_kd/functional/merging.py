"""How several teachers become one target. docs/merging.md says which of the ways are the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from ensemble_kd.functional.divergences import kl_of_logs, log_probabilities, wide
from ensemble_kd.functional.weights import normalise
from ensemble_kd.types import NEVER, SPOKEN, Output

Merge = Literal["losses", "probabilities", "logits"]

Divergence = Callable[[Tensor, Tensor], Tensor]
"""From the log-probabilities of the target and of the student, both (*, c) or both (m, *, c), to a
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
    return torch.stack([wide(teacher.logits) for teacher in teachers]).detach()


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

    A class that a teacher does not know (-inf or ``NEVER``) is left to the others: it gets
    sum_k w_k p_k over the sum of the weights of those who know it, and the whole is normalised.

    Args:
        log_p: (m, *, c).
        weights: (m, *), >= 0, sums to one over m.

    Returns:
        (*, c). A teacher of weight zero neither counts nor sends gradient to its weight.
    """
    # Not -inf: where all are -inf, the gradient of logsumexp is NaN.
    lowest = torch.finfo(log_p.dtype).min / 8
    counts = weights > 0
    log_w = torch.where(counts, torch.where(counts, weights, 1.0).log(), lowest).unsqueeze(-1)
    knows = log_p > SPOKEN
    together = torch.logsumexp(log_w + torch.where(knows, log_p, lowest), dim=0)
    known = torch.logsumexp(torch.where(knows, log_w, lowest), dim=0)
    counts = counts.unsqueeze(-1)
    unheard = torch.where((counts & (log_p > -torch.inf)).any(dim=0), NEVER, -torch.inf)
    return torch.where((counts & knows).any(dim=0), together - known, unheard).log_softmax(dim=-1)


def mean_logits(logits: Tensor, weights: Tensor) -> Tensor:
    """sum_k w_k z_k.

    Where a teacher does not know a class (-inf or ``NEVER``), the mean is over those who do, and
    the logits are taken as log-probabilities, so that what one teacher adds to all of them does not
    count.

    Args:
        logits: (m, *, c).
        weights: (m, *), sums to one over m.

    Returns:
        (*, c).
    """
    knows = logits > SPOKEN
    everyone = knows.all(dim=(0, -1), keepdim=True)
    logits = torch.where(everyone, logits, logits.log_softmax(dim=-1))
    shares = torch.where(knows, weights.unsqueeze(-1), 0.0)
    total = shares.sum(dim=0)
    summed = (shares * torch.where(knows, logits, 0.0)).sum(dim=0)
    spoken = (weights > 0).unsqueeze(-1) & (logits > -torch.inf)
    unheard = torch.where(spoken.any(dim=0), NEVER, -torch.inf)
    return torch.where(total > 0, summed / torch.where(total > 0, total, 1.0), unheard)


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

    A target says nothing of classes that its teachers do not know (logits of -inf): q is then the
    student's distribution over the others, and the means are over those who know a class.

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
    log_p = log_probabilities(target_logits, temperature)
    if merge == "losses":
        return (weights * divergence(log_p, _within(target_logits, logits, temperature))).sum(dim=0)
    shares = normalise(weights)
    if merge == "probabilities":
        target = log_mean_probabilities(log_p, shares)
    else:
        target = log_probabilities(mean_logits(target_logits, shares), temperature)
    return weights.sum(dim=0) * divergence(target, _within(target, logits, temperature))


def _within(target: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """Log-probabilities of a student among the classes that a target knows: those above -inf.

    Where a target knows all of them, as nearly all do, they are computed once for all teachers. A
    GPU is not asked whether that is so, since it would have to finish all that it was given first.
    """
    if target.device.type == "cpu" and bool((target > -torch.inf).all()):
        return log_probabilities(logits, temperature).expand(target.shape)
    return log_probabilities(torch.where(target > -torch.inf, logits, -torch.inf), temperature)
