"""How many bytes of tensors some work needs at a time."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, UntypedStorage
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Allocated(TorchDispatchMode):
    """Counts storages that operations make while it is active, until they are freed.

    What an operation keeps to itself, such as the scratch memory of a convolution, is not seen.

    Attributes:
        now: bytes that were made and are still there; below zero where more was freed of what is
            watched than was made.
        most: the largest that ``now`` has been, at least 0.
    """

    def __init__(self, watched: Sequence[Tensor] = ()) -> None:
        """
        Args:
            watched: tensors that are there already, whose end counts as well, such as gradients.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self._known: dict[int, weakref.ref[UntypedStorage]] = {}
        for tensor in watched:
            self._note(tensor.untyped_storage(), counted=True)

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an operation, and count what it made."""
        given = dict(kwargs or {})
        for part in tree_leaves((args, given)):
            if isinstance(part, Tensor):
                self._note(part.untyped_storage(), counted=False)
        result = func(*args, **given)
        for part in tree_leaves(result):
            if isinstance(part, Tensor):
                storage = part.untyped_storage()
                if self._note(storage, counted=True):
                    self.now += storage.nbytes()
                    self.most = max(self.most, self.now)
        return result

    def _note(self, storage: UntypedStorage, counted: bool) -> bool:
        """Remember a storage until it is freed; whether it was not known."""
        key = storage._cdata
        if key in self._known:
            return False
        size = storage.nbytes() if counted else 0

        def freed(_: object) -> None:
            self.now -= size
            del self._known[key]

        self._known[key] = weakref.ref(storage, freed)
        return True


@contextmanager
def most_of(device: torch.device, watched: Sequence[Tensor] = ()) -> Iterator[Callable[[], int]]:
    """Find out how many bytes what happens inside takes at a time, beside what was there before.

    Args:
        device: where it happens.
        watched: tensors that are there already and may be freed inside.

    Yields:
        What says so afterwards.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield lambda: torch.cuda.max_memory_allocated(device) - before
        return
    with Allocated(watched) as counted:
        yield lambda: counted.most
