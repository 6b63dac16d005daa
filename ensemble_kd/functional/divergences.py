"""Divergences between distributions that are given as logits: one value per sample.

Everything is computed in float32 or wider, whatever the type of the logits, and through
``log_softmax`` only: values and gradients are finite for logits of +-1e4, where probabilities
underflow. Nothing here detaches: a target that must not receive gradient is detached by the caller.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ensemble_kd.types import UNLABELLED


def wide(values: Tensor) -> Tensor:
    """The same values in float32, or as they are when they are float32 or float64 already."""
    # Asked many times in each step, nearly always of what is wide already.
    if values.dtype is torch.float32 or values.dtype is torch.float64:
        return values
    return values.to(torch.promote_types(values.dtype, torch.float32))


def log_probabilities(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """log softmax(logits / temperature).

    Args:
        logits: (*, c) in any floating type.
        temperature: a positive finite number.

    Returns:
        (*, c) in float32 or wider.

    Raises:
        ValueError: the temperature is not a positive finite number.
    """
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(f"temperature must be a positive finite number, got {temperature}")
    return F.log_softmax(wide(logits) / temperature, dim=-1)


def entropy(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """-sum_c p_c log p_c with p = softmax(logits / temperature), in nats.

    Args:
        logits: (*, c).
        temperature: a positive finite number.

    Returns:
        (*,) between zero and log c.
    """
    log_p = log_probabilities(logits, temperature)
    p = log_p.exp()
    return -(p * _where_possible(p, log_p)).sum(dim=-1)


def cross_entropy(logits: Tensor, target: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy with a hard label, zero where the label is not known.

    With smoothing e the target is (1 - e) on the label plus e / c on every class (Szegedy et al.,
    arXiv 1512.00567, section 7).

    Args:
        logits: (*, c).
        target: (*,) int64, a class or ``UNLABELLED``.
        smoothing: e, in [0, 1).

    Returns:
        (*,) one value per sample.
    """
    rows, labels = wide(logits), target
    if target.ndim > 1:
        rows, labels = rows.flatten(0, -2), target.flatten()
    values = F.cross_entropy(
        rows, labels, ignore_index=UNLABELLED, reduction="none", label_smoothing=smoothing
    )
    return values.view_as(target) if target.ndim > 1 else values


def soft_cross_entropy(target_logits: Tensor, logits: Tensor, temperature: float = 1.0) -> Tensor:
    """-sum_c t_c log p_c with t and p the softmax of the two logits at one temperature.

    Its gradient with respect to ``logits`` is that of ``kl``; the value is larger by the entropy of
    the target.

    Args:
        target_logits: (*, c).
        logits: (*, c).
        temperature: a positive finite number.

    Returns:
        (*,) one value per sample.
    """
    return cross_entropy_of_logs(
        log_probabilities(target_logits, temperature), log_probabilities(logits, temperature)
    )


def cross_entropy_of_logs(log_t: Tensor, log_p: Tensor) -> Tensor:
    """-sum_c t_c log p_c of two distributions that are given as log-probabilities.

    Args:
        log_t: (*, c).
        log_p: (*, c); the leading axes broadcast.

    Returns:
        (*,) one value per sample.
    """
    t = log_t.exp()
    return -(t * _where_possible(t, log_p)).sum(dim=-1)


def kl(target_logits: Tensor, logits: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(t || p) = sum_c t_c log(t_c / p_c), without the factor T^2 and without any reduction.

    Args:
        target_logits: (*, c), the first argument t of the divergence.
        logits: (*, c), the second one.
        temperature: a positive finite number, the same for both.

    Returns:
        (*,) one value per sample.
    """
    return kl_of_logs(
        log_probabilities(target_logits, temperature), log_probabilities(logits, temperature)
    )


def kl_of_logs(log_t: Tensor, log_p: Tensor) -> Tensor:
    """KL(t || p) of two distributions that are given as log-probabilities.

    Args:
        log_t: (*, c).
        log_p: (*, c); the leading axes broadcast.

    Returns:
        (*,) one value per sample.
    """
    t = log_t.exp()
    return (t * _where_possible(t, log_t - log_p)).sum(dim=-1)


def jensen_shannon_of_logs(log_t: Tensor, log_p: Tensor, beta: float = 0.5) -> Tensor:
    """beta KL(t || m) + (1 - beta) KL(p || m) with the mixture m = beta t + (1 - beta) p.

    Args:
        log_t: (*, c).
        log_p: (*, c); the leading axes broadcast.
        beta: the share of the first distribution, in (0, 1).

    Returns:
        (*,) one value per sample, at most the entropy of (beta, 1 - beta) and so at most log 2.
    """
    # A class that both rule out is -inf for both, where the mixture's gradient would be NaN.
    lowest = torch.finfo(log_p.dtype).min / 2
    log_m = torch.logaddexp(
        log_t.clamp(min=lowest) + math.log(beta), log_p.clamp(min=lowest) + math.log1p(-beta)
    )
    return beta * kl_of_logs(log_t, log_m) + (1 - beta) * kl_of_logs(log_p, log_m)


def total_variation_of_logs(log_t: Tensor, log_p: Tensor) -> Tensor:
    """sum_c |t_c - p_c| / 2 of two distributions that are given as log-probabilities.

    Args:
        log_t: (*, c).
        log_p: (*, c); the leading axes broadcast.

    Returns:
        (*,) one value per sample, in [0, 1].
    """
    return 0.5 * (log_t.exp() - log_p.exp()).abs().sum(dim=-1)


def _where_possible(p: Tensor, values: Tensor) -> Tensor:
    """The values, and zero where p is zero: 0 log 0 = 0, also for a class whose logit is -inf."""
    return torch.where(p > 0, values, values.new_zeros(()))
