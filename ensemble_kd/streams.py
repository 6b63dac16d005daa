"""Random numbers: where every global generator of a process stands."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def streams() -> dict[str, Any]:
    """Where the global generators of this process stand, as tensors and plain values."""
    version, words, gauss = random.getstate()
    # The generator of all who ask for none of their own.
    numpy: dict[str, Any] = np.random.get_state(legacy=False)  # noqa: NPY002
    keys = torch.from_numpy(numpy["state"]["key"].astype(np.int64))
    said: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": [version, list(words), gauss],
        "numpy": {**numpy, "state": {**numpy["state"], "key": keys}},
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        said["cuda"] = torch.cuda.get_rng_state()  # of the one device that this process uses
    return said


def take_up(said: dict[str, Any]) -> None:
    """Let the global generators go on from where others stood.

    Args:
        said: by ``streams``.
    """
    torch.set_rng_state(said["torch"])
    version, words, gauss = said["python"]
    random.setstate((version, tuple(words), gauss))
    state = said["numpy"]["state"]
    keys = state["key"].numpy().astype(np.uint32)
    np.random.set_state({**said["numpy"], "state": {**state, "key": keys}})  # noqa: NPY002
    if "cuda" in said:
        torch.cuda.set_rng_state(said["cuda"])
