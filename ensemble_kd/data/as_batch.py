"""Read what a user's own dataloader yields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ensemble_kd.errors import UserError
from ensemble_kd.types import UNLABELLED, Batch

TARGETS = ("target", "targets", "label", "labels", "y")


def as_batch(batch: Any, start_index: int = 0) -> Batch:
    """Turn a pair, a mapping or a ``Batch`` into a ``Batch``.

    Args:
        batch: ``(inputs, target)``, or a mapping with one of the keys ``target``, ``targets``,
            ``label``, ``labels`` and ``y``, optionally ``index`` and ``mask``, and the inputs:
            under the one key that remains, or, if several do, as a dict of all that remain. A
            target of ``UNLABELLED`` (-100) stands for a missing label.
        start_index: the number of the first sample, for batches that do not bring an ``index``.

    Raises:
        UserError: it is something else, or the targets are not whole numbers.
    """
    if isinstance(batch, Batch):
        return batch
    index: Tensor | None = None
    mask: Tensor | None = None
    if isinstance(batch, Mapping):
        rest = dict(batch)
        named = [key for key in TARGETS if key in rest]
        if len(named) != 1:
            raise UserError(
                f"a batch must have one of the keys {', '.join(TARGETS)}, "
                f"got {', '.join(map(str, batch)) or 'no key'}"
            )
        target = rest.pop(named[0])
        index, mask = rest.pop("index", None), rest.pop("mask", None)
        if not rest:
            raise UserError(f"a batch must hold inputs beside {named[0]!r}, got nothing else")
        inputs = rest.popitem()[1] if len(rest) == 1 else rest
    elif isinstance(batch, (tuple, list)) and len(batch) == 2:
        inputs, target = batch
    else:
        size = f" of {len(batch)}" if isinstance(batch, (tuple, list)) else ""
        raise UserError(
            "a dataloader must yield (inputs, target), a mapping or a Batch, "
            f"got {type(batch).__name__}{size}"
        )
    if not isinstance(target, Tensor) or target.ndim == 0 or target.is_floating_point():
        kind = f"a tensor {target.dtype}" if isinstance(target, Tensor) else type(target).__name__
        raise UserError(f"targets must be a tensor of class numbers (int64), got {kind}")
    target = target.long()
    if mask is None and bool((target == UNLABELLED).any()):
        mask = target != UNLABELLED
    if index is None:
        index = torch.arange(start_index, start_index + len(target), device=target.device)
    return Batch(inputs, target, index, mask)
