"""Float32 for losses and weights, in whatever the networks around them compute."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from ensemble_kd.functional.divergences import wide
from ensemble_kd.types import Output


def uncast(like: Tensor) -> AbstractContextManager[object]:
    """A context without autocast, where ``like`` is: products of float32 tensors are float32.

    Autocast multiplies in half precision whatever was widened before, and its products overflow.
    """
    device = like.device.type
    if not torch.is_autocast_enabled(device):
        return nullcontext()
    return torch.autocast(device, enabled=False)


def widened(said: Output) -> Output:
    """The same output with logits and features in float32, or as they are where they are wider."""
    parts = (said.logits, *said.features.values())
    if all(wide(part) is part for part in parts):
        return said
    features = {name: wide(feature) for name, feature in said.features.items()}
    return said._replace(logits=wide(said.logits), features=features)
