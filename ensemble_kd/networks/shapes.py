"""The shapes of what the modules of a network give."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ensemble_kd.errors import UserError
from ensemble_kd.networks.cut import resting


def layer_shapes(network: nn.Module, inputs: Sequence[int]) -> list[tuple[str, tuple[int, ...]]]:
    """Path and output shape of every module that gives a tensor, in the order in which they end.

    Args:
        network: the network; it is run once, in eval mode, on two samples of zeros, and left as it
            was.
        inputs: shape of one sample.

    Raises:
        UserError: the network fails on such samples.
    """
    ended: list[tuple[str, tuple[int, ...]]] = []

    def note(name: str, module: nn.Module, given: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            ended.append((name, tuple(output.shape)))

    handles = [
        module.register_forward_hook(partial(note, name))
        for name, module in network.named_modules()
        if name
    ]
    like = next(network.parameters(), torch.zeros(()))
    try:
        with torch.no_grad(), resting(network):
            network(torch.zeros(2, *inputs, dtype=like.dtype, device=like.device))
    except (RuntimeError, TypeError, ValueError) as failure:
        raise UserError(
            f"{type(network).__name__} fails on samples of shape {tuple(inputs)}: "
            f"{' '.join(str(failure).split())}"
        ) from failure
    finally:
        for handle in handles:
            handle.remove()
    return ended
