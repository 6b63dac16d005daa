from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn


def _settled(network: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            assert part.running_mean is not None
            assert part.running_var is not None
            part.running_mean.normal_(0, 0.3, generator=generator)
            part.running_var.uniform_(0.5, 2, generator=generator)
            with torch.no_grad():
                part.weight.uniform_(0.5, 1.5, generator=generator)
                part.bias.normal_(0, 0.3, generator=generator)
    return network.eval()


@pytest.fixture
def settled() -> Callable[[nn.Module], nn.Module]:
    """Puts a network into eval mode with BatchNorms that do something."""
    return _settled
