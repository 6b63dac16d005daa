"""One target from the logits of several networks that learn together (KDCL)."""

from __future__ import annotations

import torch
from torch import Tensor

from ensemble_kd.functional.divergences import cross_entropy, wide

PRECISION = 1e-7
"""Of the combination with the least cross-entropy, in units of the largest difference of logits."""

RIDGE = 1e-6
"""Added to the diagonal of a covariance, in units of its mean: identical networks share alike."""


def most_certain(logits: Tensor, target: Tensor) -> Tensor:
    """For each sample the logits of the network with the smallest cross-entropy.

    Args:
        logits: (m, *, c).
        target: (*,) int64, all known.

    Returns:
        (*, c); of equally good networks, those of the first.
    """
    losses = torch.stack([cross_entropy(each, target) for each in logits])
    best = losses.argmin(dim=0)
    chosen = best.unsqueeze(0).unsqueeze(-1).expand(1, *logits.shape[1:])
    return logits.gather(0, chosen).squeeze(0)


def min_logit(logits: Tensor, target: Tensor) -> Tensor:
    """z*_c = min_k (z_kc - z_ky): each class as far below the label as any network says.

    Args:
        logits: (m, *, c).
        target: (*,) int64, all known.

    Returns:
        (*, c), zero at the label.
    """
    return _relative(logits, target).amin(dim=0)


def best_combination(logits: Tensor, target: Tensor) -> Tensor:
    """The weights a of the convex combination sum_k a_k z_k with the smallest cross-entropy.

    For each sample by itself, by an interior-point method: Newton steps on the cross-entropy minus
    mu sum_k log a_k, with mu going to zero; the cross-entropy is then at most m mu too large.

    Args:
        logits: (m, *, c).
        target: (*,) int64, all known.

    Returns:
        (m, *) in float64, > 0, sums to one over m. Uniform where it makes no difference.
    """
    below = _relative(logits, target).double().movedim(0, -2).flatten(0, -3)
    samples, count, _ = below.shape
    weights = below.new_full((samples, count), 1 / count)
    scale = below.abs().flatten(1).amax(dim=1).clamp(min=1.0)
    share = 1.0 if count > 1 else 0.0
    while share > PRECISION:
        share *= 0.2
        for _ in range(2):
            weights = _newton(below, weights, share * scale)
    return weights.movedim(-1, 0).reshape(logits.shape[:-1])


def least_error_weights(covariance: Tensor) -> Tensor:
    """w_k = sum_j (C^-1)_kj / sum_ij (C^-1)_ij: the sum-to-one weights of the least squared error.

    Args:
        covariance: (m, m) of the networks' errors, symmetric and positive semi-definite.

    Returns:
        (m,) in float64, sums to one; a weight may be negative. Uniform if all errors are zero.
    """
    c = covariance.double()
    scale = c.diagonal().mean()
    if not scale > 0:
        return torch.full_like(c[0], 1 / len(c))
    ones = torch.ones_like(c[0])
    shares: Tensor = torch.linalg.solve(c / scale + RIDGE * torch.eye(len(c)).to(c), ones)
    return shares / shares.sum()


def _relative(logits: Tensor, target: Tensor) -> Tensor:
    """z_kc - z_ky, (m, *, c) in float32 or wider."""
    values = wide(logits)
    at_label = target.unsqueeze(0).unsqueeze(-1).expand(len(values), *target.shape, 1)
    return values - values.gather(-1, at_label)


def _newton(below: Tensor, weights: Tensor, mu: Tensor) -> Tensor:
    """One damped Newton step on the barrier problem, (n, m).

    The step is sought as a multiple u of the weights, which keeps the system well conditioned near
    the boundary: with the gradient g and Hessian H of the cross-entropy and A = diag(a),
    [A H A + mu I, a; a^T, 0] [u; multiplier] = [mu - A g; 0].
    """
    samples, count, _ = below.shape
    p = torch.einsum("nm,nmc->nc", weights, below).softmax(dim=-1)
    scaled = weights.unsqueeze(-1) * below
    slope = torch.einsum("nc,nmc->nm", p, scaled)
    spread = torch.einsum("nc,nmc,nkc->nmk", p, scaled, scaled)
    system = below.new_zeros(samples, count + 1, count + 1)
    system[:, :count, :count] = spread - slope.unsqueeze(1) * slope.unsqueeze(2)
    system[:, :count, :count] += mu.view(-1, 1, 1) * torch.eye(count).to(below)
    system[:, :count, count] = system[:, count, :count] = weights
    right = torch.cat([mu.unsqueeze(-1) - slope, mu.new_zeros(samples, 1)], dim=1)
    u = torch.linalg.solve(system, right)[:, :count]
    longest = (0.99 / (-u).amax(dim=1).clamp(min=1e-300)).clamp(max=1.0)
    lengths = longest * 0.5 ** torch.arange(12).to(below).unsqueeze(-1)
    tried = weights * (1 + lengths.unsqueeze(-1) * u)
    loss = torch.einsum("lnm,nmc->lnc", tried, below).logsumexp(dim=-1)
    best = (loss - mu * tried.log().sum(dim=-1)).argmin(dim=0)
    chosen: Tensor = tried[best, torch.arange(samples, device=best.device)]
    return chosen / chosen.sum(dim=1, keepdim=True)
