"""How replicas that are trained apart hand each other copies of their weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

State = Mapping[str, Tensor]
"""Weights and buffers of a network, by name."""

NEVER = -1
"""The step of a copy that was never received."""


class Copy(NamedTuple):
    """A replica as it was.

    Attributes:
        replica: its number; the student is 0, the peers follow.
        step: optimiser steps that it had taken.
        state: on the CPU.
    """

    replica: int
    step: int
    state: State


class Received(NamedTuple):
    """What an exchange brought.

    Attributes:
        copies: of the other replicas, at most one of each, newer than those that were held.
        sent: bytes of weights that were published.
        got: bytes of weights that were read.
    """

    copies: list[Copy]
    sent: int
    got: int


class Exchange(Protocol):
    """The medium through which replicas hand each other copies.

    Attributes:
        shares_a_run: the replicas are processes of one run, which has all of them in the end.
    """

    shares_a_run: bool

    def own(self) -> int:
        """The number of the replica that this process trains."""
        ...

    def open(self, layout: Mapping[str, Any], expected: Sequence[State], step: int) -> None:
        """Make ready, in the process that trains, before its first step.

        Args:
            layout: plain values on which all replicas must agree, by the key of the setting.
            expected: a state of each replica, for names, shapes and types.
            step: optimiser steps taken so far; not 0 where a training is taken up again.

        Raises:
            UserError: the others are replicas of another set-up, or nothing can be exchanged.
        """
        ...

    def swap(self, step: int, state: State, held: Sequence[int]) -> Received:
        """Publish the own state and take those of the others.

        Args:
            step: optimiser steps taken so far.
            state: of the own replica.
            held: the step of the copy that is held of each replica, ``NEVER`` for none.

        Raises:
            UserError: nothing can be published.
        """
        ...

    def close(self, step: int, state: State) -> Received:
        """Publish the own state for good, after the last step.

        Raises:
            UserError: nothing can be published.
        """
        ...


class Ledger(nn.Module):
    """What a replica holds of the others and what the exchange cost; all of it part of the state.

    Args:
        replicas: how many there are.
    """

    steps: Tensor
    ages: Tensor
    bytes: Tensor

    def __init__(self, replicas: int) -> None:
        super().__init__()
        self.register_buffer("steps", torch.full((replicas,), NEVER))
        # Exchanges at which a copy was held, the sum of its ages, and the largest.
        self.register_buffer("ages", torch.zeros(replicas, 3, dtype=torch.int64))
        self.register_buffer("bytes", torch.zeros(3, dtype=torch.int64))  # exchanges, sent, got

    def note(self, step: int, received: Received, own: int) -> None:
        """Write down one exchange.

        Args:
            step: of the own replica.
            received: what came.
            own: its number.
        """
        for copy in received.copies:
            self.steps[copy.replica] = copy.step
        for number, held in enumerate(self.held()):
            if number == own or held == NEVER:
                continue
            age = step - held
            count, total, largest = self.ages[number].tolist()
            oldest = age if count == 0 else max(largest, age)
            self.ages[number] = torch.tensor([count + 1, total + age, oldest])
        self.bytes[0] += 1
        self.paid(received)

    def paid(self, received: Received) -> None:
        """Write down the bytes of an exchange after which nobody is heard any more."""
        self.bytes[1] += received.sent
        self.bytes[2] += received.got

    def held(self) -> list[int]:
        """The step of the copy that is held of each replica, ``NEVER`` for none."""
        steps: list[int] = self.steps.tolist()
        return steps

    def complete(self, own: int) -> bool:
        """Whether there is a copy of every other replica."""
        return all(step != NEVER for k, step in enumerate(self.held()) if k != own)

    def told(self, own: int) -> dict[str, Any]:
        """As plain values: how old the copies were that taught, in steps, and the bytes."""
        exchanges, sent, got = self.bytes.tolist()
        copies = {}
        for number, (count, total, largest) in enumerate(self.ages.tolist()):
            if number != own and count:
                copies[f"replica {number}"] = {
                    "last_step": self.held()[number],
                    "exchanges": count,
                    "mean_age": total / count,
                    "largest_age": largest,
                }
        return {
            "replica": own,
            "exchanges": exchanges,
            "sent_bytes": sent,
            "received_bytes": got,
            "copies": copies,
        }


def on_cpu(state: State) -> dict[str, Tensor]:
    """The same state on the CPU, in memory of its own."""
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in state.items()}


def architecture(state: State) -> str:
    """A digest of names, shapes and types, in hex."""
    said = [[name, list(value.shape), str(value.dtype)] for name, value in sorted(state.items())]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:32]


def differing(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """The first value on which two layouts do not agree, in words; empty where they do."""
    for key, value in ours.items():
        if theirs.get(key) != value:
            return f"{key} is {theirs.get(key)!r} there and {value!r} here"
    return ""
