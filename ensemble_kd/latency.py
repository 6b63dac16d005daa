"""How long predictors take."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ensemble_kd.predict import networks_of, resting_on

WARM_UP = 2
"""Forward passes before the first that is timed."""


class Latency(NamedTuple):
    """Milliseconds for a forward pass: the median, and what 95 of 100 passes need at most."""

    p50: float
    p95: float


def latency(network: nn.Module, inputs: Any, repeats: int = 15, seconds: float = 0.15) -> Latency:
    """How long a network needs for a batch.

    Over several forward passes in eval and inference mode, where ``inputs`` are.

    Args:
        network: any predictor.
        inputs: a batch.
        repeats: how often to measure at most.
        seconds: when to stop measuring anyway, after at least three repeats.
    """
    sample = next(part for part in tree_leaves(inputs) if isinstance(part, Tensor))
    synchronise = _synchroniser(sample.device)
    times: list[float] = []
    with resting_on(networks_of(network), sample.device), torch.inference_mode():
        for _ in range(WARM_UP):
            network(inputs)
        synchronise()
        started = time.perf_counter()
        while len(times) < repeats and (len(times) < 3 or time.perf_counter() - started < seconds):
            before = time.perf_counter()
            network(inputs)
            synchronise()
            times.append(time.perf_counter() - before)
    p50, p95 = np.percentile(times, [50, 95]) * 1e3
    return Latency(float(p50), float(p95))


def _synchroniser(device: torch.device) -> Callable[[], None]:
    """What waits until a device has done all that it was given."""
    if device.type == "cpu":
        return lambda: None
    return lambda: torch.accelerator.synchronize(device)
