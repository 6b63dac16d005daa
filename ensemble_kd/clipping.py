"""Clipping gradients that may be scaled, in ways that the trainer refuses."""

from __future__ import annotations

from pytorch_lightning import LightningModule
from torch import nn
from torch.optim import Optimizer


def clip_gradients(
    module: LightningModule, optimizer: Optimizer, clip: float, algorithm: str
) -> None:
    """Clip the gradients of an optimiser by their norm, or value by value.

    Args:
        module: what is trained.
        optimizer: whose parameters.
        clip: the largest norm, or value.
        algorithm: ``norm`` or ``value``.
    """
    if not getattr(optimizer, "_step_supports_amp_scaling", False):
        module.clip_gradients(optimizer, clip, algorithm)
        return
    # A fused optimiser divides by the scale itself, when it steps. Gradients are still scaled
    # here, which the trainer takes for a reason not to clip.
    scaler = getattr(module.trainer.precision_plugin, "scaler", None)
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    limit = clip if scaler is None else clip * scaler.get_scale()
    if algorithm == "norm":
        nn.utils.clip_grad_norm_(parameters, limit)
    elif all(bool(p.grad.isfinite().all()) for p in parameters if p.grad is not None):
        # What is not finite stays so, for the scaler has yet to see it.
        nn.utils.clip_grad_value_(parameters, limit)
