"""The replicas of a codistillation that other processes train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_fabric.utilities import rank_zero_only
from torch import nn
from torch.distributed.tensor import DTensor

from ensemble_kd.errors import UserError
from ensemble_kd.strategies.exchange import Exchange, Ledger, Received, architecture
from ensemble_kd.strategies.rank_exchange import Ranks
from ensemble_kd.strategies.shared_folder import SharedFolder


class Elsewhere(nn.Module):
    """One replica is trained here, and copies of the others have their networks for a place.

    Args:
        medium: through which they are exchanged.
        replicas: how many there are.
    """

    def __init__(self, medium: Exchange, replicas: int) -> None:
        super().__init__()
        self.medium = medium
        self.ledger = Ledger(replicas)
        self.entered = False

    @property
    def own(self) -> int:
        """The number of the replica that is trained here."""
        return self.medium.own()

    @property
    def shares_a_run(self) -> bool:
        """Whether the other processes belong to this run."""
        return self.medium.shares_a_run

    def enter(self, networks: Sequence[nn.Module], layout: Mapping[str, Any], step: int) -> None:
        """Find the others.

        Args:
            networks: the own replica and the places of the others.
            layout: on what all must agree.
            step: optimiser steps taken so far.

        Raises:
            UserError: they are of another set-up, or cannot be reached, or weights are shared out.
        """
        states = [network.state_dict() for network in networks]
        if any(isinstance(value, DTensor) for state in states for value in state.values()):
            raise UserError(
                "strategy.across: expected networks that are whole in each process, got weights "
                "that are shared out: trainer=ddp, or another trainer"
            )
        kinds = [architecture(state) for state in states]
        self.medium.open({**layout, "networks": kinds}, states, step)
        self.entered = True

    def complete(self) -> bool:
        """Whether all others can be heard; before a training begins, as they would be in it."""
        return not self.entered or self.ledger.complete(self.own)

    def swap(self, networks: Sequence[nn.Module], step: int) -> int:
        """Publish the own replica and take copies of the others; returns the bytes that moved.

        Raises:
            UserError: the own one cannot be published.
        """
        state = networks[self.own].state_dict()
        received = self.medium.swap(step, state, self.ledger.held())
        self._place(networks, received)
        self.ledger.note(step, received, self.own)
        return received.sent + received.got

    def leave(self, networks: Sequence[nn.Module], step: int) -> None:
        """Publish the last weights, and say what the exchange has been.

        Raises:
            UserError: they cannot be published.
        """
        received = self.medium.close(step, networks[self.own].state_dict())
        self._place(networks, received)
        self.ledger.paid(received)
        self.entered = False
        told = self.told()
        moved = told["sent_bytes"] + told["received_bytes"]
        _say(
            f"replica {self.own}: {told['exchanges']} exchanges, {moved / max(step, 1):,.0f} bytes "
            f"per step; {_ages(told)}"
        )

    def told(self) -> dict[str, Any]:
        """What was exchanged, and how old the copies were, as plain values."""
        return self.ledger.told(self.own)

    def _place(self, networks: Sequence[nn.Module], received: Received) -> None:
        for copy in received.copies:
            networks[copy.replica].load_state_dict(dict(copy.state))


def medium(across: str | None, replica: int, patience: float, replicas: int) -> Exchange | None:
    """How replicas that are trained elsewhere are reached; None where there are none.

    Args:
        across: None, ``ranks`` or the absolute path of a folder.
        replica: which one this process trains; with a folder only.
        patience: seconds to wait for who is behind; with a folder only.
        replicas: how many there are.

    Raises:
        UserError: an argument is out of range, or they cannot be reached so.
    """
    if not 0 <= replica < replicas:
        raise UserError(
            f"strategy.replica: expected 0 (the student) to {replicas - 1}, one of the {replicas} "
            f"replicas, got {replica}"
        )
    if not patience >= 0:
        raise UserError(f"strategy.patience: expected seconds >= 0, got {patience}")
    folder = across is not None and Path(across).is_absolute()
    if replica and not folder:
        raise UserError(
            f"strategy.replica: expected 0 without strategy.across=FOLDER, got {replica}"
        )
    if across is None:
        return None
    if across == "ranks":
        return Ranks(replicas)
    if not folder:
        raise UserError(
            "strategy.across: expected null, ranks or an absolute path (replicas may start in "
            f"different folders), got {across!r}: {Path(across).absolute()}"
        )
    return SharedFolder(Path(across), replica, replicas, patience)


@rank_zero_only
def _say(line: str) -> None:
    """Print a line, once where several processes train one replica."""
    print(line, flush=True)


def _ages(told: Mapping[str, Any]) -> str:
    """How old the copies were at the exchanges, in words."""
    said = [
        f"{name}'s copies were {each['mean_age']:.1f} steps old on average, "
        f"{each['largest_age']} at most"
        for name, each in told["copies"].items()
    ]
    return "; ".join(said) or "no copy of another replica was there"
