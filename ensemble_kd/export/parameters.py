"""How large a network is."""

from __future__ import annotations

from torch import nn


def count_parameters(network: nn.Module) -> int:
    """Number of weights, each counted once, trained or not; buffers do not count."""
    return sum(parameter.numel() for parameter in network.parameters())
