"""The divergence of two distributions in two parts: the target class, and the others (DKD)."""

from __future__ import annotations

import torch
from torch import Tensor

from ensemble_kd.functional.divergences import kl_of_logs


def decoupled_of_logs(log_t: Tensor, log_p: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """TCKD = KL of (target, rest) and NCKD = KL over the other classes, given none is the target.

    KL(t || p) = TCKD + (1 - t_target) NCKD (Zhao et al., arXiv 2203.08679). All in log
    space: the probability of the rest is the logsumexp of its classes and not one minus the
    target's, so that a student who is sure keeps finite values and gradients.

    Args:
        log_t: (*, c) or (m, *, c) log-probabilities, c >= 2.
        log_p: (*, c) log-probabilities.
        target: (*,) int64, all of them classes.

    Returns:
        TCKD and NCKD, (*,) or (m, *) each.
    """
    pair_t, others_t = _split(log_t, target)
    pair_p, others_p = _split(log_p, target)
    return kl_of_logs(pair_t, pair_p), kl_of_logs(others_t, others_p)


def _split(log_p: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of (target, rest), (*, 2), and of the others within the rest, (*, c-1)."""
    samples = log_p.shape[:-1]
    place = target.unsqueeze(-1)
    skipped = torch.arange(log_p.shape[-1] - 1, device=target.device)
    skipped = skipped + (skipped >= place)
    others = log_p.gather(-1, skipped.expand(*samples, -1))
    rest = others.logsumexp(dim=-1, keepdim=True)
    pair = torch.cat([log_p.gather(-1, place.expand(*samples, -1)), rest], dim=-1)
    # Not others - rest: far below the label, the difference of two large numbers is coarse.
    return pair, others.log_softmax(dim=-1)
