"""Which coalitions of teachers Shapley values are made of, and how much each of them counts."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

WALKS = 100
"""Pairs of orders that are drawn where there are more teachers."""


class Coalitions(NamedTuple):
    """The sets of teachers whose accuracies are needed; the first is empty, the last is of all.

    Attributes:
        members: (s, m) bool, who is in each of them.
        shares: (s, m) float64, how much its accuracy counts in the Shapley value of each teacher.
        without: (m,) int64, which of them is of all teachers but one.
        walks: (w, 2, m) int64, pairs of orders in which teachers come in; empty where the values
            are exact.
        stops: (w, 2, m + 1) int64, the coalitions on the way, from the first to the last.
    """

    members: Tensor
    shares: Tensor
    without: Tensor
    walks: Tensor
    stops: Tensor


def all_coalitions(teachers: int) -> Coalitions:
    """Every coalition, and the Shapley values' coefficients."""
    bits = torch.arange(teachers)
    members = (torch.arange(2**teachers).unsqueeze(1) >> bits) % 2 == 1
    # Of joining a coalition of each size: 1 / m in the mean over sizes, then over coalitions.
    joining = torch.tensor(
        [1 / (teachers * math.comb(teachers - 1, size)) for size in range(teachers)],
        dtype=torch.float64,
    )
    sizes = members.sum(1, keepdim=True)
    joined, left = joining[(sizes - 1).clamp(min=0)], joining[sizes.clamp(max=teachers - 1)]
    none = torch.zeros(0, 2, teachers, dtype=torch.int64)
    return Coalitions(
        members, torch.where(members, joined, -left), 2**teachers - 1 - 2**bits, none, none
    )


def drawn_coalitions(teachers: int, seed: int) -> Coalitions:
    """The coalitions that form as teachers come in, in random orders and their reverses."""
    generator = torch.Generator().manual_seed(seed)
    orders = torch.stack([torch.randperm(teachers, generator=generator) for _ in range(WALKS)])
    walks = torch.stack([orders, orders.flip(1)], 1)
    came = F.pad(F.one_hot(walks, teachers).cumsum(-2), (0, 0, 1, 0))
    all_but_one = 1 - torch.eye(teachers, dtype=torch.int64)
    # Sorted, so that the first is empty and the last is of all.
    members, numbers = torch.cat([came.flatten(0, -2), all_but_one]).unique(
        dim=0, return_inverse=True
    )
    stops = numbers[:-teachers].view(WALKS, 2, teachers + 1)
    shares = torch.zeros(len(members), teachers, dtype=torch.float64)
    step = torch.tensor(1 / (2 * WALKS), dtype=torch.float64)
    shares.index_put_((stops[..., 1:], walks), step, accumulate=True)
    shares.index_put_((stops[..., :-1], walks), -step, accumulate=True)
    return Coalitions(members == 1, shares, numbers[-teachers:], walks, stops)
