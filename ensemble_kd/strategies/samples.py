"""Some of the samples of a batch."""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor
from torch.utils import _pytree as pytree

from ensemble_kd.types import Batch, Output

Samples = TypeVar("Samples", Batch, Output)


def chosen(samples: Samples, rows: Tensor) -> Samples:
    """Some samples of a batch, or what was said of them.

    How many labels the like of them have in a whole optimiser step is not known: means over the
    labelled ones are then those of the batch alone.

    Args:
        samples: every tensor in it has the samples on its first axis.
        rows: (n,) int64 numbers of the samples, or (b,) bool.
    """
    picked: Samples = pytree.tree_map(
        lambda part: part[rows] if isinstance(part, Tensor) else part, samples
    )
    return picked._replace(labels=None) if isinstance(picked, Batch) else picked
