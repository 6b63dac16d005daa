"""A network that teaches and is never touched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lightning_fabric.utilities import move_data_to_device
from torch import Tensor, nn

from ensemble_kd.networks.taps import listen
from ensemble_kd.teachers.foreign import Numbered
from ensemble_kd.teachers.label_space import LabelSpace
from ensemble_kd.types import Batch, Output


class Frozen(nn.Module):
    """A teacher: always in eval mode, without gradient, invisible to whoever trains.

    It follows ``.to()`` and its kin, unless it was told to ``stay`` somewhere, and is absent from
    ``parameters()``, ``buffers()``, ``state_dict()``, ``children()`` and ``train()``: an optimiser
    cannot find it, a checkpoint cannot store it, and its BatchNorm statistics cannot move.

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
        self._home: torch.device | None = None

    @property
    def network(self) -> nn.Module:
        """The network itself, for whoever evaluates it."""
        return self._held[0]

    @property
    def home(self) -> torch.device | None:
        """The device of its own, if it has one."""
        return self._home

    def stay(self, home: torch.device) -> None:
        """Live on a device of its own from now on: inputs go there, and answers come back.

        Args:
            home: where the network is moved now; ``.to()`` moves it no more.
        """
        self.network.to(home)
        self._home = home

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
        asker = _device(inputs)
        if self._home is None or asker in (None, self._home):
            return self._said(inputs)
        with _same_precision(asker, self._home):
            said = self._said(move_data_to_device(inputs, self._home))
        brought: Output = move_data_to_device(said, asker)
        return brought

    def _said(self, inputs: Any) -> Output:
        with torch.inference_mode():
            said = listen(self.network, inputs, self.taps)
        # Tensors born in inference mode cannot be saved for a backward pass; their copies can.
        return Output(said.logits.clone(), {name: f.clone() for name, f in said.features.items()})

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Frozen:
        self.network._apply(fn if self._home is None else _staying(fn), recurse)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


def _staying(fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The same, for all that it does to a tensor but moving it."""

    def applied(tensor: Tensor) -> Tensor:
        # Asked of nothing, so that no tensor travels.
        dtype = fn(torch.empty(0, dtype=tensor.dtype)).dtype
        return tensor.to(dtype)

    return applied


@contextmanager
def _same_precision(asker: torch.device, home: torch.device) -> Iterator[None]:
    """Compute on one device in the mixed precision in which another one does."""
    if asker.type == home.type:
        yield
        return
    mixed = torch.is_autocast_enabled(asker.type)
    with torch.autocast(home.type, torch.get_autocast_dtype(asker.type), enabled=mixed):
        yield


def _device(inputs: Any) -> torch.device | None:
    """Where the first of the tensors among some inputs is; None without one."""
    if isinstance(inputs, Tensor):
        return inputs.device
    if isinstance(inputs, Mapping):
        return _device(list(inputs.values()))
    if isinstance(inputs, list | tuple):
        return next((found for found in map(_device, inputs) if found is not None), None)
    return None
