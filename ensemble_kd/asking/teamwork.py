"""Filling records together with whoever else is filling them: other processes, other machines."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from lightning_fabric.utilities import move_data_to_device
from torch import Tensor

from ensemble_kd.cache import Shares, Shelf
from ensemble_kd.teachers.filling import DiskSlot, Slot, fill, parts
from ensemble_kd.types import Batch

if TYPE_CHECKING:
    from ensemble_kd.asking.inquiry import Inquiry
    from ensemble_kd.teachers import Ensemble

Ahead = Callable[[], Iterator[Batch]]
"""The training batches that will be wanted first, in their order."""

PAUSE = 0.05
"""Seconds between two looks at what others do, when nothing is left but what they work on."""


def begun(
    shelf: Shelf,
    missing: Mapping[str, Mapping[str, Any]],
    examples: Mapping[str, Tensor],
    asked: Inquiry,
) -> dict[str, DiskSlot]:
    """A place on the shelf for each missing part, by key, but for those that are there by now.

    Args:
        shelf: where they are kept.
        missing: what determines each part, by key.
        examples: one answer of each, by key.
        asked: what the teachers are asked.

    Raises:
        UserError: they do not fit on the disk.
    """
    index, views = asked.recurring.index, asked.recurring.views
    formats = {key: asked.format_of(said["answers"]) for key, said in missing.items()}
    shapes = {key: tuple(examples[key].shape) for key in missing}
    with ExitStack() as held:
        for key in sorted(missing):  # in one order everywhere, or two runs wait for each other
            held.enter_context(shelf.locked(key))
        # Another run may have written some of them in the meantime.
        lacking = [key for key in missing if shelf.find(key) is None]
        rows = views * len(index)
        shelf.expect_room(
            {key: rows * formats[key].row_bytes(prod(shapes[key])) for key in lacking}
        )
        slots: dict[str, DiskSlot] = {}
        for key in lacking:
            writer = shelf.writing(key, missing[key], index, views, shapes[key], formats[key])
            slots[key] = DiskSlot(writer, formats[key], index)
    return slots


def fill_together(
    shelf: Shelf,
    slots: Mapping[str, DiskSlot],
    own: Sequence[Mapping[str, Slot]],
    live: Ensemble,
    asked: Inquiry,
    moved: Callable[[float], None],
    ahead: Ahead | None = None,
) -> None:
    """Write what nobody else is writing, until all records are finished, by whomever.

    Args:
        shelf: where the records are kept.
        slots: by key; they are closed.
        own: the same, of each teacher by part.
        live: the teachers.
        asked: what they are asked.
        moved: hears which share of all is written.
        ahead: the batches that are asked about first.

    Raises:
        UserError: the disk is full; what was written stays.
    """
    shares = Shares([slots[key].writer for key in sorted(slots)], asked.batch_size)

    def done(piece: tuple[int, int, int]) -> None:
        shares.done(piece)
        moved(shares.written)

    rest = dict(slots)
    try:
        if ahead is not None:
            _fill_ahead(own, live, asked, ahead, shares)
        while rest:
            pieces = shares.claimed()
            first = next(pieces, None)
            if first is not None:
                claimed = itertools.chain([first], pieces)
                fill(live, own, asked.recurring, asked.batch_size, asked.device, claimed, done)
            shares.refresh()
            for key in [key for key, slot in rest.items() if slot.writer.whole]:
                if _finished(shelf, key, slots[key]):
                    del rest[key]
            if rest and first is None:
                time.sleep(PAUSE)
                moved(shares.written)
    finally:
        shares.close()


def _fill_ahead(
    own: Sequence[Mapping[str, Slot]],
    live: Ensemble,
    asked: Inquiry,
    ahead: Ahead,
    shares: Shares,
) -> None:
    """Ask about whole batches of the training, wherever their samples lie."""
    for batch in ahead():
        if batch.view is None or len(batch.index) != asked.batch_size:
            continue
        shares.refresh()
        if not any(_lacks(slot, batch) for slots in own for slot in slots.values()):
            continue
        here = move_data_to_device(batch, torch.device(asked.device))
        for said, slots in zip(live.own(here), own, strict=True):
            for part, values in parts(said).items():
                slot = slots.get(part)
                if isinstance(slot, DiskSlot):
                    slot.write_batch(batch, values.cpu())


def _lacks(slot: Slot, batch: Batch) -> bool:
    return isinstance(slot, DiskSlot) and slot.lacks_batch(batch)


def _finished(shelf: Shelf, key: str, slot: DiskSlot) -> bool:
    """Whether a record is finished, by now or by somebody else."""
    with shelf.locked(key):
        if shelf.find(key) is None:
            slot.writer.verify()
            if not slot.writer.whole:
                return False
            slot.writer.finish()
    return True
