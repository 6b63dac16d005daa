"""Teachers whose answers PyTorch does not compute."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, TypeVar

from torch import Tensor, nn

from ensemble_kd.types import Batch, Output, as_output

_Own = TypeVar("_Own", bound="Foreign")


class Foreign(nn.Module):
    """A teacher that runs elsewhere: in another library, or in code of the user's.

    It is not changed by being asked, so a copy of it is itself, and nobody looks for a faster way
    of running it. It takes inputs on any device and answers on that of the inputs.
    """

    def __deepcopy__(self: _Own, memo: dict[int, Any]) -> _Own:
        return self


class Numbered(Foreign, ABC):
    """A teacher that knows its answers by the numbers of the samples, whatever their inputs are."""

    @abstractmethod
    def of(self, index: Tensor) -> Output:
        """What it says of samples (b,) int64, on their device.

        Raises:
            UserError: it says nothing of one of them.
        """

    def forward(self, inputs: Any) -> Output:
        """Not possible: inputs do not tell which samples they are."""
        raise TypeError(f"{type(self).__name__} answers by the numbers of samples, not by inputs")


def asked(network: nn.Module, batch: Batch) -> Output:
    """What a network says of a batch, whether it looks at inputs or at numbers."""
    if isinstance(network, Numbered):
        return network.of(batch.index)
    return as_output(network(batch.inputs))
