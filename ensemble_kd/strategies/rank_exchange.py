"""Replicas that hand each other copies as the processes of one group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ensemble_kd.distributed import ranks
from ensemble_kd.errors import UserError
from ensemble_kd.strategies.exchange import Copy, Received, State, differing, on_cpu

KEY = "strategy.across"


class Ranks:
    """Each process that torchrun or srun started trains the replica of its rank.

    At an exchange all wait for all, and each sends its weights to every other. Replicas that were
    taken up again at different steps exchange what they have; who is done goes on to take part
    until all are.

    Args:
        replicas: how many there are, which is how many processes there must be.

    Raises:
        UserError: there are more or fewer processes.
    """

    shares_a_run = True

    def __init__(self, replicas: int) -> None:
        if ranks.size() != replicas:
            raise UserError(
                f"{KEY}: expected one process for each of the {replicas} replicas, got "
                f"{ranks.size()}: torchrun --nproc-per-node {replicas} -m ensemble_kd ..., or the "
                "path of a folder"
            )
        self._expected: Sequence[State] = ()

    def own(self) -> int:
        """The rank of this process."""
        return ranks.rank()

    def open(self, layout: Mapping[str, Any], expected: Sequence[State], step: int) -> None:
        """See that all processes were started with the same set-up.

        Raises:
            UserError: they were not, in every process.
        """
        from torch import distributed

        layouts: list[Any] = [None] * len(expected)
        distributed.all_gather_object(layouts, dict(layout))
        for number, theirs in enumerate(layouts):
            difference = differing(theirs, layouts[0])
            if difference:
                raise UserError(f"{KEY}: replica {number} is of another set-up: {difference}")
        self._expected = [on_cpu(state) for state in expected]

    def swap(self, step: int, state: State, held: Sequence[int]) -> Received:
        """Send the own state to all, and receive theirs."""
        return self._gathered(step, state, final=False)[0]

    def close(self, step: int, state: State) -> Received:
        """Take part until all are done; what is received then are the last states."""
        done, received = False, Received([], 0, 0)
        sent = got = 0
        while not done:
            received, done = self._gathered(step, state, final=True)
            sent, got = sent + received.sent, got + received.got
        return Received(received.copies, sent, got)

    def _gathered(self, step: int, state: State, final: bool) -> tuple[Received, bool]:
        """One exchange, and whether everybody is done."""
        from torch import distributed

        own, size = self.own(), len(self._expected)
        about = [torch.zeros(2, dtype=torch.int64) for _ in range(size)]
        distributed.all_gather(about, torch.tensor([step, int(final)]))
        copies, sent, got = [], 0, 0
        for number, expected in enumerate(self._expected):
            flat = flattened(on_cpu(state) if number == own else expected)
            distributed.broadcast(flat, src=number)
            if number == own:
                sent = flat.numel()
            else:
                got += flat.numel()
                copies.append(Copy(number, int(about[number][0]), unflattened(flat, expected)))
        return Received(copies, sent, got), all(bool(each[1]) for each in about)


def flattened(state: State) -> Tensor:
    """(n,) uint8: the bytes of all tensors, one after the other."""
    parts = [value.contiguous().reshape(-1).view(torch.uint8) for value in state.values()]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.uint8)


def unflattened(flat: Tensor, like: State) -> dict[str, Tensor]:
    """The inverse of ``flattened``.

    Args:
        flat: (n,) uint8.
        like: a state with the same names, shapes and types.
    """
    sizes = [value.numel() * value.element_size() for value in like.values()]
    return {
        # A copy begins where its type may begin.
        name: part.clone().view(value.dtype).reshape(value.shape)
        for (name, value), part in zip(like.items(), flat.split(sizes), strict=True)
    }
