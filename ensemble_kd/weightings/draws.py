"""Chance that depends on a seed and a step only."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def draws(seed: int, step: int, shape: Sequence[int]) -> Tensor:
    """Numbers uniform in [0, 1) that are the same whenever this seed and step are asked again.

    Nothing is carried over from step to step, so that there is no generator to store and restore:
    a run that is resumed draws what it would have drawn, and so do all processes of one run.

    Args:
        seed: which sequence.
        step: which of its members.
        shape: shape of the result.

    Returns:
        float64 on the CPU.
    """
    # An odd multiplier keeps seeds apart that differ by less than a run is long.
    mixed = (seed * 0x9E3779B97F4A7C15 + step) % 2**63
    generator = torch.Generator().manual_seed(mixed)
    return torch.rand(tuple(shape), generator=generator, dtype=torch.float64)
