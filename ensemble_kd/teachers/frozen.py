"""A network that teaches and is never touched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ensemble_kd.networks.taps import listen
from ensemble_kd.teachers.foreign import Numbered
from ensemble_kd.teachers.label_space import LabelSpace
from ensemble_kd.types import Batch, Output


class Frozen(nn.Module):
    """A teacher: always in eval mode, without gradient, invisible to whoever trains.

    It follows ``.to()`` and its kin, and is absent from ``parameters()``, ``buffers()``,
    ``state_dict()``, ``children()`` and ``train()``: an optimiser cannot find it, a checkpoint
    cannot store it, and its BatchNorm statistics cannot move.

    Args:
        network: the teacher; it is put into eval mode and its parameters stop requiring gradient.
        taps: the features that are wanted beside its logits.
        space: what its outputs mean in the student's classes, if it has other ones.
    """

    def __init__(
        self, network: nn.Module, taps: Sequence[str] = (), space: LabelSpace | None = None
    ) -> None:
        super().__init__()
        self.taps = tuple(taps)
        self.space = space
        # A tuple hides the network from nn.Module's bookkeeping, which is the point of this class.
        self._held = (network.eval().requires_grad_(False),)

    @property
    def network(self) -> nn.Module:
        """The network itself, for whoever evaluates it."""
        return self._held[0]

    def forward(self, inputs: Any) -> Output:
        """Logits (*, c) and features, as ordinary tensors that carry no gradient."""
        return self.translated(self.own(inputs))

    def answer(self, batch: Batch) -> Output:
        """What it says of a batch, in the student's classes."""
        return self.translated(self.own_answer(batch))

    def own_answer(self, batch: Batch) -> Output:
        """What the network itself says of a batch, in its own classes."""
        if isinstance(self.network, Numbered):
            return self.network.of(batch.index)
        return self.own(batch.inputs)

    def translated(self, own: Output) -> Output:
        """What the network itself says, in the student's classes."""
        if self.space is None:
            return own
        translated: Output = self.space(own)
        return translated

    def own(self, inputs: Any) -> Output:
        """What the network itself says, in its own classes."""
        with torch.inference_mode():
            said = listen(self.network, inputs, self.taps)
        # Tensors born in inference mode cannot be saved for a backward pass; their copies can.
        return Output(said.logits.clone(), {name: f.clone() for name, f in said.features.items()})

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Frozen:
        self.network._apply(fn, recurse)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self
