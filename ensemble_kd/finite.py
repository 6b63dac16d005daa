"""Seeing at once when a loss stops being finite, without waiting for the device in each step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ensemble_kd.errors import UserError

EVERY = 50
"""Turns between two looks at values that lie on a device for which one would have to wait."""


class _Noted(NamedTuple):
    """The terms of one turn, and where they belong."""

    terms: Mapping[str, Tensor]
    epoch: int
    batch: int


class Watch:
    """Looks at loss terms, or remembers them for a while, and names the first that is not finite.

    On the CPU it looks at once. Elsewhere a look waits for the device, so that one is taken every
    ``EVERY`` turns and whenever somebody asks; what it finds is the first turn that was bad.
    """

    def __init__(self) -> None:
        self._noted: list[_Noted] = []

    def note(self, terms: Mapping[str, Tensor], epoch: int, batch: int, hint: str = "") -> None:
        """Hear of one turn.

        Args:
            terms: scalars without gradient, by name.
            epoch: how many epochs came before.
            batch: how many batches of this epoch came before.
            hint: what else might help, for the message.

        Raises:
            UserError: see ``look``.
        """
        turn = _Noted(terms, epoch, batch)
        if all(value.device.type == "cpu" for value in terms.values()):
            _check(turn, [value.item() for value in terms.values()], hint)
            return
        self._noted.append(turn)
        if len(self._noted) >= EVERY:
            self.look(hint)

    def look(self, hint: str = "") -> None:
        """See whether all that was noted since the last look is finite.

        Args:
            hint: what else might help, for the message.

        Raises:
            UserError: the first term that is not; the message names it, its epoch and its batch.
        """
        noted, self._noted = self._noted, []
        if not noted:
            return
        values = iter(
            torch.stack([v.float() for turn in noted for v in turn.terms.values()]).tolist()
        )
        for turn in noted:
            _check(turn, [next(values) for _ in turn.terms], hint)


def _check(turn: _Noted, values: list[float], hint: str) -> None:
    for name, value in zip(turn.terms, values, strict=True):
        if not math.isfinite(value):
            raise UserError(
                f"the loss term {name!r} became {value} in epoch {turn.epoch + 1}, batch "
                f"{turn.batch + 1}: lower optimizer.lr, set optimizer.clip, {hint}or look at the "
                "data; what was trained before it is kept, and with the same settings it stops "
                "here again"
            )
