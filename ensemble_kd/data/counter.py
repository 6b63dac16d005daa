"""Random numbers without state: each is a function of its keys and of nothing else.

What a sample looks like after augmentation must not depend on the batch it happens to be in, on the
number of processes or on who else drew numbers before. So a number is not drawn, it is computed:
``absorb`` hashes one more key into a state, and the state is turned into a number. The words are
NumPy's, which has unsigned 64-bit arithmetic and needs a quarter of PyTorch's time for few of them.

Source: Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators (OOPSLA 2014), with
the finaliser "Mix13" of Stafford, known as SplitMix64. ``absorb(seed, i)`` is the output ``i`` of
that generator when it starts at ``seed``.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Words = npt.NDArray[np.uint64]

ONE = np.uint64(1)
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
FIRST = np.uint64(0xBF58476D1CE4E5B9)
SECOND = np.uint64(0x94D049BB133111EB)


def words(numbers: Tensor | int) -> Words:
    """Keys: an int64 tensor as it is, a number as one word, both modulo 2^64."""
    if isinstance(numbers, Tensor):
        return numbers.cpu().numpy().astype(np.uint64)
    return np.array([numbers % 2**64], np.uint64)


def absorb(state: Words, key: Words) -> Words:
    """Hash one more key into a state.

    Args:
        state: (*) words.
        key: (*) words; broadcast against ``state``.

    Returns:
        Words of the broadcast shape, all 64 bits well mixed.
    """
    # Products and sums of arrays wrap around, which is the arithmetic modulo 2^64 that is wanted.
    word = state + (key + ONE) * GOLDEN
    word ^= word >> np.uint64(30)
    word *= FIRST
    word ^= word >> np.uint64(27)
    word *= SECOND
    word ^= word >> np.uint64(31)
    return word


def derive(seed: int, purpose: str) -> int:
    """A seed for one purpose, unrelated to the seeds of other purposes; in [0, 2^64)."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:8], "little")


def integers(state: Words, count: int, bound: int) -> Tensor:
    """Whole numbers in [0, bound), (*, count) int64, for each state (*); bound <= 2^32."""
    drawn = (_draws(state, count) >> np.uint64(32)) * np.uint64(bound) >> np.uint64(32)
    return torch.from_numpy(drawn.astype(np.int64))


def normal(state: Words, count: int) -> Tensor:
    """Standard normal numbers, (*, count) float32, for each state (*).

    Source: Box and Muller (1958); the upper 24 and the lower 32 bits of one word make a pair.
    """
    word = _draws(state, (count + 1) // 2)
    upper = torch.from_numpy((word >> np.uint64(40)).astype(np.int32)).float()
    lower = torch.from_numpy(word.astype(np.uint32).view(np.int32)).float()
    # The half keeps the logarithm finite; the largest value is sqrt(2 ln 2^25), about 5.9.
    radius = upper.add_(0.5).mul_(2.0**-24).log_().mul_(-2).sqrt_()
    angle = lower.mul_(math.pi * 2.0**-31)
    return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=-1)[..., :count]


def _draws(state: Words, count: int) -> Words:
    return absorb(state[..., None], np.arange(count, dtype=np.uint64))
