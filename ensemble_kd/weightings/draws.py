"""Chance that depends on a seed and a step only."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ensemble_kd.data.counter import absorb, integers, words


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


def draws_of_samples(seed: int, step: int, index: Tensor, shape: Sequence[int]) -> Tensor:
    """Numbers uniform in [0, 1), some for each sample, whatever other samples are in the batch.

    Args:
        seed: which sequence.
        step: which of its members.
        index: (b,) int64, the numbers of the samples.
        shape: shape of what is drawn for each of them.

    Returns:
        (b, *shape) float64 on the CPU.
    """
    state = absorb(absorb(words(seed), words(step)), words(index))
    drawn = integers(state, math.prod(shape), 2**32).double()
    return drawn.view(len(index), *shape) / 2**32
