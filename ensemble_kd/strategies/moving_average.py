"""Networks that follow others as an exponential moving average."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn


class MovingAverage(nn.Module):
    """Copies of networks whose weights are a moving average of theirs.

    Parameters and floating-point buffers, such as the statistics of BatchNorm, are averaged alike:
    averaged weights with the latest statistics, or with statistics of their own forward passes,
    would not fit each other. Other buffers are copied. The copies receive no gradient; they are
    part of the state, so that a run can be taken up again.

    Source: Tarvainen and Valpola, Mean Teachers (arXiv 1703.01780), with the authors' warm-up: the
    true mean of all steps so far, as long as that forgets faster.

    Args:
        networks: what is followed; modules that they share are shared by the copies as well.
        decay: share of the old value in the new one, in [0, 1).

    Raises:
        ValueError: the decay is out of range.
    """

    def __init__(self, networks: Sequence[nn.Module], decay: float = 0.999) -> None:
        super().__init__()
        check_decay(decay)
        self.networks = nn.ModuleList(copy.deepcopy(list(networks))).requires_grad_(False)
        self.decay = decay

    def start(self, networks: Sequence[nn.Module]) -> None:
        """Take over the weights of the networks as they are."""
        self._move(networks, 0.0)

    def follow(self, networks: Sequence[nn.Module], step: int) -> None:
        """Take one step towards the networks.

        Args:
            networks: those that are followed, in their order.
            step: how many steps were taken before this one.
        """
        self._move(networks, min(1 - 1 / (step + 1), self.decay))

    @torch.no_grad()
    def _move(self, networks: Sequence[nn.Module], decay: float) -> None:
        followed = nn.ModuleList(networks).state_dict()
        moved: set[int] = set()
        for name, mean in self.networks.state_dict(keep_vars=True).items():
            if id(mean) in moved:  # a module that two networks share stands there twice
                continue
            moved.add(id(mean))
            if mean.is_floating_point():
                mean.lerp_(followed[name], 1 - decay)
            else:
                mean.copy_(followed[name])


def check_decay(decay: float) -> None:
    """Refuse what is no decay.

    Raises:
        ValueError: it is not in [0, 1).
    """
    if not 0 <= decay < 1:
        raise ValueError(f"decay must be in [0, 1), got {decay}")
