"""A network behind something that prepares its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from ensemble_kd.types import Output, as_output


class Prepared(nn.Module):
    """A network that sees its inputs in a form of its own.

    Layers are named as in the network itself: see ``inside``.

    Args:
        network: returns logits, an ``Output`` or an object with ``.logits``.
        prepare: makes of the inputs of a batch what the network takes: one argument, or a mapping
            of arguments by name.
    """

    def __init__(self, network: nn.Module, prepare: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.prepare = prepare

    @property
    def own_tokens(self) -> bool:
        """Whether it reads texts in other tokens than those of the data."""
        return bool(getattr(self.prepare, "own_tokens", False))

    def forward(self, inputs: Any) -> Output:
        """Logits (*, c) float32."""
        given = self.prepare(inputs)
        returned = self.network(**given) if isinstance(given, Mapping) else self.network(given)
        said = as_output(returned)
        return said._replace(logits=said.logits.float())


def inside(network: nn.Module) -> nn.Module:
    """The network whose layers are meant when those of this one are named."""
    return inside(network.network) if isinstance(network, Prepared) else network
