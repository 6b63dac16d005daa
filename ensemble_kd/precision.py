"""The number formats in which a trainer lets networks compute."""

from __future__ import annotations

from typing import Final

import torch

MIXED: Final = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""Weights in float32, with most of the networks' operations in these."""

SINGLE: Final = "32-true"
"""Everything in float32."""


def autocast(precision: str, device: str) -> torch.autocast:
    """The context in which a trainer of some precision has its networks answer.

    Args:
        precision: ``trainer.precision``.
        device: ``cpu`` or ``cuda``.
    """
    return torch.autocast(device, MIXED.get(precision), enabled=precision in MIXED)
