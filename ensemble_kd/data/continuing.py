"""Taking up an epoch within which a training was cut off."""

from __future__ import annotations

from typing import Any

import torch

from ensemble_kd.data.adapted_batches import AdaptedBatches


def skip(batches: Any, count: int, before: dict[str, Any] | None) -> None:
    """Have the next iteration begin behind some batches, and further ones at the beginning.

    Args:
        batches: the training batches that a datamodule of this package gave to a trainer.
        count: how many are left out.
        before: what ``read`` said before the first that is not.
    """
    served = _served(batches)
    if isinstance(served, AdaptedBatches):
        served.skip(count, before if count else None)
    else:
        served.skip(count)


def read(batches: Any) -> dict[str, Any] | None:
    """Where the random streams stood before the last batch was read from a user's own dataloader.

    Args:
        batches: the training batches that a datamodule of this package gave to a trainer; its own
            data draws from no stream.
    """
    served = _served(batches)
    return served.before if isinstance(served, AdaptedBatches) else None


def generators(batches: Any) -> list[torch.Generator]:
    """The generators that decide the order of a dataloader of the user's own, in a fixed order.

    Args:
        batches: the training batches that a datamodule of this package gave to a trainer; its own
            data holds no generators.
    """
    served = _served(batches)
    return served.generators() if isinstance(served, AdaptedBatches) else []


def _served(batches: Any) -> Any:
    """What makes the batches, behind all that only gives them other labels."""
    while hasattr(batches, "batches"):
        batches = batches.batches
    return batches
