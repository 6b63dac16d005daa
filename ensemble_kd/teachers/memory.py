"""Answers in memory, by sample and view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ensemble_kd.cache import Float32, Places, Record
from ensemble_kd.errors import UserError

LIGHT = 2**28
"""Bytes up to which answers of several teachers are put side by side, which takes a copy."""


class Memory:
    """Answers of one teacher, beside those of others that are often wanted together with them.

    Args:
        places: where they lie.
        values: (views n, m, ...) of m teachers.
        number: which of them.
    """

    def __init__(self, places: Places, values: Tensor, number: int = 0) -> None:
        self.places = places
        self.values = values
        self.number = number

    @property
    def nbytes(self) -> int:
        """Of the answers of this teacher."""
        return self.values.nbytes // self.values.shape[1]

    def read(self, index: Tensor, view: Tensor) -> Tensor:
        """(b, ...) for samples (b,) in views (b,), both int64.

        Raises:
            UserError: a sample or a view was not kept.
        """
        return self._take(self.values[:, self.number], index, view)

    def read_all(self, index: Tensor, view: Tensor) -> tuple[Tensor, ...]:
        """As ``read``, of all m teachers at once.

        Raises:
            UserError: a sample or a view was not kept.
        """
        return self._take(self.values, index, view).unbind(1)

    def _take(self, values: Tensor, index: Tensor, view: Tensor) -> Tensor:
        try:
            return values.index_select(0, torch.from_numpy(self.places.of(index, view)))
        except IndexError as failure:
            raise UserError(
                f"cache: expected one of {self.places.samples} samples in one of "
                f"{self.places.views} views, got one of which the teachers were not asked (numbers "
                f"{int(index.min())} to {int(index.max())}): cache=off answers live"
            ) from failure


def lifted(kept: Mapping[str, Any]) -> dict[str, Memory]:
    """What records hold, side by side in memory, where all are exact and light; else nothing.

    Args:
        kept: by key, of the same samples and views; other things than records stay where they are.
    """
    records = [each for each in kept.values() if isinstance(each, Record)]
    exact = len(records) == len(kept) and all(isinstance(r.format, Float32) for r in records)
    if not records or not exact or sum(record.manifest.size for record in records) > LIGHT:
        return {}
    first = records[0]
    views = torch.arange(first.views).repeat_interleave(first.samples)
    index = first.index.repeat(first.views)
    places = Places(first.index, first.views)
    memories = [Memory(places, each.read(index, views).unsqueeze(1)) for each in records]
    return dict(zip(kept, side_by_side(memories), strict=True))


def side_by_side(memories: Sequence[Memory]) -> list[Memory]:
    """The same answers, in one tensor where they are light and alike, so that one look finds all.

    Args:
        memories: each the only one in its tensor; all of the same samples and views.
    """
    values = [memory.values for memory in memories]
    alike = {(each.shape, each.dtype) for each in values}
    if len(alike) != 1 or sum(each.nbytes for each in values) > LIGHT:
        return list(memories)
    joined, places = torch.cat(values, dim=1), memories[0].places
    return [Memory(places, joined, number) for number in range(len(values))]
