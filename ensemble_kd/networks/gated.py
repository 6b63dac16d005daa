"""Several networks whose logits are mixed by a gate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ensemble_kd.functional import mean_logits, wide
from ensemble_kd.networks.arguments import at_least
from ensemble_kd.networks.branched import Branched, run_branches
from ensemble_kd.networks.cut import drop_trunk


class Gate(nn.Module):
    """How much each branch counts: softmax(ReLU(BatchNorm(Linear(features)))).

    BatchNorm and ReLU before the softmax keep the gate from leaning on a single branch.

    Source: Lan, Zhu and Gong, Knowledge Distillation by On-the-Fly Native Ensemble (arXiv
    1806.04606), section 3.2, in the layers of the authors' code (Lan1991Xu/ONE_NeurIPS2018 at
    54afde3, models/cifar/resnet.py).

    Args:
        features: size of what it sees.
        branches: how many branches there are.

    Raises:
        ValueError: an argument is not positive.
    """

    def __init__(self, features: int, branches: int) -> None:
        super().__init__()
        at_least(1, features=features, branches=branches)
        self.features = features
        self.branches = branches
        self.linear = nn.Linear(features, branches)
        self.norm = nn.BatchNorm1d(branches)

    def forward(self, features: Tensor) -> Tensor:
        """(b, d) to (m, b), which sums to one over the m branches."""
        shares = wide(self.norm(self.linear(features))).relu().softmax(dim=-1)
        return shares.T

    def mix(self, branched: Branched) -> tuple[Tensor, Tensor]:
        """The logits (*, c) of the gated ensemble, and the share (m, b) of each branch.

        The gate sees what the shared trunk gave; of networks apart, the features of all their
        classifiers, one after the other.
        """
        seen = branched.shared
        shares = self(torch.cat(branched.features, dim=-1) if seen is None else seen)
        logits = torch.stack([wide(output.logits) for output in branched.outputs])
        places = (1,) * (logits.ndim - 3)
        return mean_logits(logits, shares.to(logits.dtype).view(*shares.shape, *places)), shares


class Gated(nn.Module):
    """Networks that classify together, their logits mixed by a gate.

    Args:
        networks: the networks. With a split, the trunk of the first serves all of them, and the
            others lose theirs.
        gate: how much each of them counts.
        split: path of the module at which the networks are cut; None for networks apart.
    """

    def __init__(self, networks: Sequence[nn.Module], gate: Gate, split: str | None = None) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.gate = gate
        self.split = split
        for network in self.networks[1:]:
            if split is not None:
                drop_trunk(network, split)

    def forward(self, inputs: Any) -> Tensor:
        """(*, c) logits of a batch of inputs."""
        return self.gate.mix(run_branches(list(self.networks), self.split, [inputs]))[0]
