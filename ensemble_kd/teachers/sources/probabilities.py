"""From probabilities to logits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ensemble_kd.errors import UserError

FLOOR = 1e-7
"""Smallest probability whose logarithm is taken: a teacher that says zero, as forests do of classes
that none of their trees has seen in a leaf, is taken to say this. The logit is -16.1, and not
-inf."""

TOLERANCE = 1e-3
"""How far from one probabilities may sum up, which rounding to three digits stays below."""


def logits_of(probabilities: npt.NDArray[np.floating]) -> Tensor:
    """Logits (*, c) float32 whose softmax gives probabilities (*, c), up to ``FLOOR``.

    Computed in double precision: ``log(max(p, FLOOR))``.
    """
    values = np.log(np.maximum(np.asarray(probabilities, np.float64), FLOOR))
    return torch.from_numpy(values.astype(np.float32))


def two_classes(second: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Probabilities (b, 2), from those (b,) of the second of two classes."""
    positive = np.asarray(second, np.float64)
    return np.stack([1 - positive, positive], axis=-1)


def check_probabilities(values: npt.NDArray[np.floating], where: str) -> None:
    """Make sure that rows (n, c) are probabilities.

    Raises:
        UserError: some are not in [0, 1] or do not sum up to one; how many.
    """
    outside = ((values < 0) | (values > 1)).any(axis=1)
    off = np.abs(values.astype(np.float64).sum(axis=1) - 1) > TOLERANCE
    wrong = outside | off
    if wrong.any():
        first = int(wrong.argmax())
        raise UserError(
            f"{where}: expected probabilities in [0, 1] that sum up to one, got {int(wrong.sum())} "
            f"rows of {len(values)} that do not, first row {first} with the sum "
            f"{float(values[first].sum()):.4g}: are these logits?"
        )
