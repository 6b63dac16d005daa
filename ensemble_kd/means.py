"""The means of loss terms over an epoch, without waiting for the device in each step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


class Means:
    """Weighted sums of named values, and the sum of the weights."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counted = 0.0

    def count(self, weight: float | None) -> None:
        """Hear what a batch counts for; one if not given."""
        self._counted += 1.0 if weight is None else weight

    def add(self, values: Mapping[str, Tensor], weight: float | None) -> None:
        """Add scalars without gradient, by name, of the batch that was counted."""
        for name, value in values.items():
            seen = value if weight is None else value * weight
            self._sums[name] = self._sums[name] + seen if name in self._sums else seen

    def taken(self) -> Iterator[tuple[str, Tensor]]:
        """The means by name, in the order in which they came first; then begin anew."""
        sums, counted = self._sums, self._counted
        self._sums, self._counted = {}, 0.0
        for name, total in sums.items():
            yield name, total / counted

    def state(self) -> dict[str, Any]:
        """All of it, as tensors and plain values."""
        return {"sums": dict(self._sums), "counted": self._counted}

    def take_up(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Go on from what ``state`` said in another process."""
        self._sums = {name: total.to(device) for name, total in state["sums"].items()}
        self._counted = state["counted"]
