"""The features that a network's classifier sees."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ensemble_kd.errors import UserError
from ensemble_kd.networks.compiled import compiled_forward
from ensemble_kd.networks.taps import INPUT, listen
from ensemble_kd.types import Output, as_output


def classifier(network: nn.Module) -> nn.Linear:
    """The last ``nn.Linear`` of a network.

    Raises:
        UserError: it has none.
    """
    found = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not found:
        raise UserError(
            f"expected a network that ends with an nn.Linear, got {type(network).__name__}, which "
            "has none: the method needs the features that the classifier sees"
        )
    return found[-1]


def with_penultimate(network: nn.Module, inputs: Any) -> tuple[Output, Tensor]:
    """What a network says of a batch, and the features (b, d) that its classifier saw.

    Features of several places or tokens are averaged over them. The hook that catches them lives
    for this call only, so that networks stay free to be copied.

    Args:
        network: the network, or its head.
        inputs: a batch of inputs.

    Raises:
        UserError: the last ``nn.Linear`` did not run.
    """
    last = classifier(network)
    if last is network:
        return as_output(network(inputs)), averaged(inputs)
    if compiled_forward(network) is not None:
        (tap,) = (name + INPUT for name, module in network.named_modules() if module is last)
        said = listen(network, inputs, [tap])
        return said, averaged(said.features[tap])
    caught: list[Tensor] = []
    handle = last.register_forward_pre_hook(lambda module, given: caught.append(given[0]))
    try:
        said = as_output(network(inputs))
    finally:
        handle.remove()
    if not caught:
        raise UserError(
            f"the last nn.Linear of {type(network).__name__} does not run, so it is not the "
            "classifier whose features the method needs"
        )
    return said, averaged(caught[-1])


def averaged(features: Tensor) -> Tensor:
    """Features (b, ..., d) averaged over all that lies between: (b, d)."""
    return features if features.ndim == 2 else features.flatten(1, -2).mean(dim=1)


def pooled(features: Tensor) -> Tensor:
    """The output of any layer as one vector per sample.

    Args:
        features: (b, d), feature maps (b, d, h, w), or tokens (b, l, d).

    Returns:
        (b, d), averaged over the places or tokens.
    """
    if features.ndim > 3:
        return torch.flatten(features, 2).mean(dim=2)
    return averaged(features)
