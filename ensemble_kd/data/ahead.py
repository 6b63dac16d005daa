"""Batches made by other processes, ahead of time."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.context import BaseContext
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map
from torch.utils.data import DataLoader, Dataset

from ensemble_kd.data.orders import Request
from ensemble_kd.errors import UserError
from ensemble_kd.types import Batch

Make = Callable[[Tensor, Tensor | int], Batch]

T = TypeVar("T")

SMALL = 16_384
"""Bytes of a tensor that travels in the message itself."""


class Ahead:
    """Like ``itertools.starmap(make, requests)``, by worker processes that do not wait to be asked.

    Order and values are the same, whatever the number of workers. Batches come through shared
    memory. The workers start with the second batch of the first pass, so that whoever looks at one
    batch only waits for none; they stay for further passes and end with this object.

    Args:
        make: what gives a batch; it is sent to the workers.
        workers: how many processes, >= 1.
        ahead: how many batches each makes before they are asked for, >= 1.
        pinned: put batches into memory that a graphics card reads directly.
    """

    def __init__(self, make: Make, workers: int, ahead: int = 2, pinned: bool = False) -> None:
        if workers < 1:
            raise ValueError(f"workers must be >= 1, got {workers}")
        if ahead < 1:
            raise ValueError(f"ahead must be >= 1, got {ahead}")
        self.make = make
        self.workers = workers
        self.ahead = ahead
        self.pinned = pinned
        self._requests = _Requests()
        self._loader: DataLoader[Batch | str] | None = None
        self._busy = False

    def __call__(self, requests: Iterable[Request]) -> Iterator[Batch]:
        """The batch of each request, in order.

        Raises:
            UserError: what a worker could not read, or a worker ended.
        """
        if self._busy:  # of two passes at the same time, only the first has the workers
            yield from itertools.starmap(self.make, requests)
            return
        self._busy = True
        try:
            yield from self._pass(iter(requests))
        finally:
            self._busy = False

    def close(self) -> None:
        """End the workers; a further pass starts others."""
        self._loader = None

    def _pass(self, requests: Iterator[Request]) -> Iterator[Batch]:
        if self._loader is None:
            head = list(itertools.islice(requests, 1))
            yield from itertools.starmap(self.make, head)
            head = list(itertools.islice(requests, 1))
            if not head:
                return
            self._loader = self._started()
            requests = itertools.chain(head, requests)
        self._requests.pending = requests
        try:
            for made in self._loader:
                if isinstance(made, str):
                    raise UserError(made)
                yield tree_map(_unpacked, made)
        except RuntimeError as failure:
            if "exited unexpectedly" not in str(failure):
                raise
            self._loader = None
            raise UserError(
                "data: a worker process ended unexpectedly: it was stopped, memory ran out, or a "
                "script of your own does its work without if __name__ == '__main__'; "
                "data.workers=0 needs no processes"
            ) from failure

    def _started(self) -> DataLoader[Batch | str]:
        return DataLoader(
            _Made(self.make),
            batch_size=None,
            sampler=cast(Any, self._requests),
            num_workers=self.workers,
            collate_fn=_unchanged,
            prefetch_factor=self.ahead,
            persistent_workers=True,
            pin_memory=self.pinned,
            multiprocessing_context=_context(),
            worker_init_fn=_bound,
            # Its own, so that the training draws the same with and without workers.
            generator=torch.Generator(),
        )


class _Requests:
    """What the loader takes for a sampler: the requests of the pass that begins."""

    def __init__(self) -> None:
        self.pending: Iterable[Request] = ()

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        # As arrays, which travel in the message itself and need no shared memory.
        return ((_plain(rows), _plain(visits)) for rows, visits in self.pending)


class _Made(Dataset[Batch | str]):
    """What the loader takes for samples: whole batches, or the line that says why there is none."""

    def __init__(self, make: Make) -> None:
        self.make = make

    def __getitem__(self, request: tuple[Any, Any]) -> Batch | str:
        rows, visits = map(torch.as_tensor, request)
        try:
            made = self.make(rows, visits if visits.ndim else int(visits))
        except UserError as refusal:
            return str(refusal)  # raised here, it would arrive with a traceback in its message
        packed: Batch = tree_map(_packed, made)
        return packed


def _plain(numbers: Tensor | int) -> Any:
    return numbers.numpy() if isinstance(numbers, Tensor) else numbers


def _packed(part: Any) -> Any:
    """Small tensors as arrays: a message costs less than a piece of shared memory."""
    return part.numpy() if isinstance(part, Tensor) and part.nbytes <= SMALL else part


def _unpacked(part: Any) -> Any:
    return torch.from_numpy(part) if isinstance(part, np.ndarray) else part


def _unchanged(made: T) -> T:
    return made


def _bound(worker: int) -> None:
    """Let a worker end when the process that it serves does, and not before."""
    # Ctrl-C reaches all processes of a terminal; it is the one that trains who reacts.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # PyTorch's workers look for the death of whoever forked them, which is the server, and the
    # server waits for its workers: without this, they outlive a training that is killed.
    served = multiprocessing.parent_process()
    threading.Thread(target=_end_with, args=(served,), daemon=True).start()


def _end_with(served: Any) -> None:
    served.join()
    os._exit(1)


def _context() -> BaseContext:
    """How workers are started.

    Never forked from this process: a lock that one of its threads holds would never be released in
    the copy. A server that has read this package forks them instead, where there is such a thing.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # Heard by the server when it starts, once in this process; it only saves time.
    context.set_forkserver_preload(["ensemble_kd.data"])
    return context
