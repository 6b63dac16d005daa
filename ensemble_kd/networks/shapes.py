"""The shapes of what the modules of a network give."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ensemble_kd.errors import UserError
from ensemble_kd.networks.cut import resting
from ensemble_kd.networks.prepared import inside
from ensemble_kd.types import Tokens


def layer_shapes(
    network: nn.Module, inputs: Sequence[int] | Tokens
) -> list[tuple[str, tuple[int, ...]]]:
    """Path and output shape of every module that gives a tensor, in the order in which they end.

    Args:
        network: the network; it is run once, in eval mode, and left as it was.
        inputs: some texts; or the shape of one sample, for two samples of zeros.

    Raises:
        UserError: the network fails on such samples.
    """
    ended: list[tuple[str, tuple[int, ...]]] = []

    def note(name: str, module: nn.Module, given: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            ended.append((name, tuple(output.shape)))

    handles = [
        module.register_forward_hook(partial(note, name))
        for name, module in inside(network).named_modules()
        if name
    ]
    like = next(network.parameters(), torch.zeros(()))
    try:
        with torch.no_grad(), resting(network):
            if isinstance(inputs, Tokens):
                network(inputs)
            else:
                network(torch.zeros(2, *inputs, dtype=like.dtype, device=like.device))
    except (RuntimeError, TypeError, ValueError) as failure:
        kind = "texts" if isinstance(inputs, Tokens) else f"samples of shape {tuple(inputs)}"
        raise UserError(
            f"{type(network).__name__} fails on {kind}: {' '.join(str(failure).split())}"
        ) from failure
    finally:
        for handle in handles:
            handle.remove()
    return ended
