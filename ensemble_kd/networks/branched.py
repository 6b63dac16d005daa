"""Networks that run side by side, on a shared trunk or apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ensemble_kd.networks.cut import cut, resting
from ensemble_kd.networks.penultimate import pooled, with_penultimate
from ensemble_kd.types import Output


class Branched(NamedTuple):
    """What networks side by side said of a batch.

    Attributes:
        outputs: of each network, in their order.
        features: of each network, (b, d_k), what its classifier saw.
        shared: (b, d) what the trunk gave, pooled; None for networks apart.
    """

    outputs: tuple[Output, ...]
    features: tuple[Tensor, ...]
    shared: Tensor | None


def run_branches(
    networks: Sequence[nn.Module],
    split: str | None,
    views: Sequence[Any],
    trunk_gradient: float = 1.0,
) -> Branched:
    """Run networks side by side.

    Args:
        networks: m networks; with a split, the trunk is that of the first.
        split: path of the module at which the networks are cut; None runs them apart.
        views: the inputs, the same for all networks or one for each.
        trunk_gradient: factor on the gradient that enters the trunk from the heads.
    """
    if split is None:
        starts = list(views)
        heads = list(networks)
    else:
        trunk = cut(networks[0], split).trunk
        starts = [_scaled(trunk(view), trunk_gradient) for view in views]
        heads = [cut(network, split).head for network in networks]
    if len(starts) == 1:
        starts = starts * len(heads)
    heard = [with_penultimate(head, start) for head, start in zip(heads, starts, strict=True)]
    outputs, features = zip(*heard, strict=True)
    return Branched(outputs, features, None if split is None else pooled(starts[0]))


def joined(first: nn.Module, network: nn.Module, split: str) -> nn.Sequential:
    """A network whose trunk is that of another: modules are shared, nothing is copied."""
    whole = nn.Sequential(cut(first, split).trunk, cut(network, split).head)
    # A fresh module is in training mode, whatever its parts are in.
    for part in (whole, *whole.children()):
        part.training = first.training
    return whole


def trunk_size(network: nn.Module, split: str, inputs: Sequence[int]) -> int:
    """How many features the trunk of a network gives, after pooling.

    Args:
        network: the network; it is run in eval mode on zeros and left as it was.
        split: where it is cut.
        inputs: shape of one sample.
    """
    like = next(network.parameters(), torch.zeros(()))
    zeros = torch.zeros(1, *inputs, dtype=like.dtype, device=like.device)
    with torch.no_grad(), resting(network):
        return pooled(cut(network, split).trunk(zeros)).shape[-1]


def _scaled(shared: Tensor, factor: float) -> Tensor:
    """The same tensor, whose gradient is multiplied by a factor on its way back."""
    if factor != 1 and shared.requires_grad:
        shared.register_hook(lambda gradient: gradient * factor)
    return shared
