"""What it takes to ask networks, to keep what they say, and to find it again."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import count
from math import prod
from pathlib import Path

import torch
from lightning_fabric.utilities import move_data_to_device
from torch import nn

from ensemble_kd.cache import Float32, Format, Places, Record, Shelf
from ensemble_kd.costs import size as size_of
from ensemble_kd.forecast.allocated import most_of
from ensemble_kd.forecast.described import Answered
from ensemble_kd.forecast.learners import line
from ensemble_kd.forecast.samples import of_size
from ensemble_kd.forecast.spans import Timing
from ensemble_kd.forecast.stopwatch import Clock, synchronised
from ensemble_kd.teachers import (
    Cached,
    Foreign,
    Frozen,
    Kept,
    Memory,
    Remembered,
    lifted,
    side_by_side,
)
from ensemble_kd.types import Batch, Progress

LOOKED_AT = 2**24
"""Answers that are looked up lie among others of so many numbers."""


def timed(
    work: Mapping[Hashable, Callable[[int], object]],
    sizes: Sequence[int],
    seconds: float,
    device: torch.device,
    clock: Clock = time.perf_counter,
) -> dict[Hashable, Timing]:
    """Time pieces of work, which take turns, with batches of some sizes.

    Args:
        work: by name; does what there is to do for a batch of a size.
        sizes: of batches, one or two.
        seconds: when to stop, after at least three rounds; the first warms up and does not count.
        device: where the work is done.
        clock: in seconds.
    """
    measured: dict[Hashable, dict[int, list[float]]] = {
        name: {size: [] for size in sizes} for name in work
    }
    began = time.perf_counter()
    for number in count():
        if number > 3 and time.perf_counter() - began > seconds:
            break
        for name, go in work.items():
            for size in sizes:
                before = synchronised(clock, device)
                go(size)
                if number:
                    measured[name][size].append(synchronised(clock, device) - before)
        if number >= 200:
            break
    return {name: Timing.through(by_size) for name, by_size in measured.items()}


def answered(
    teachers: Mapping[str, Frozen],
    batch: Batch,
    sizes: Sequence[int],
    seconds: float,
    device: torch.device,
    format: Format | None = None,
    clock: Clock = time.perf_counter,
) -> dict[str, Answered]:
    """Time, weigh and watch networks that are asked; those that are alike only once.

    Args:
        teachers: frozen, by name.
        batch: of the training data.
        sizes: of batches, one or two.
        seconds: for all timings together.
        device: where they compute.
        format: of what is kept on disk; float32 if not given. Features are kept as they are.
        clock: in seconds.
    """
    batches = {size: move_data_to_device(of_size(batch, size), device) for size in sizes}
    alike: dict[Hashable, Frozen] = {}
    kinds = {name: _kind(teacher) for name, teacher in teachers.items()}
    for name, teacher in teachers.items():
        alike.setdefault(kinds[name], teacher.to(device))
    work = {kind: _asking(teacher, batches) for kind, teacher in alike.items()}
    timings = timed(work, sizes, seconds, device, clock)
    found = {}
    for kind, teacher in alike.items():
        most = {}
        for size, own in batches.items():
            with most_of(device) as taken:
                said = teacher.answer(own)
            most[size] = taken()
        parts = [said.logits, *said.features.values()]
        formats = [format or Float32(), *[Float32()] * len(said.features)]
        widths = [part[0].numel() for part in parts]
        found[kind] = Answered(
            timings[kind],
            0 if isinstance(teacher.network, Foreign) else size_of(teacher.network),
            line(most),
            sum(part[0].nbytes for part in parts),
            tuple(f.row_bytes(width) for f, width in zip(formats, widths, strict=True)),
        )
        teacher.cpu()
    return {name: found[kind] for name, kind in kinds.items()}


def looked_up(
    shapes: Sequence[tuple[int, ...]],
    samples: int,
    format: Format | None,
    sizes: Sequence[int],
    seconds: float,
    clock: Clock = time.perf_counter,
) -> tuple[Timing, Timing]:
    """Keep answers of some teachers, and find them again.

    Args:
        shapes: of the logits of one sample, of each teacher.
        samples: of the training data.
        format: of what is kept on disk; None where it is kept in memory.
        sizes: of batches, one or two.
        seconds: for all timings together.
        clock: in seconds.

    Returns:
        What it takes to find the answers of all of them to a batch; and to keep those of one.
    """
    rows = max(1, min(samples, LOOKED_AT // max(map(prod, shapes))))
    index = torch.arange(rows)
    said = torch.randn(rows, *shapes[0])
    device = torch.device("cpu")
    with tempfile.TemporaryDirectory() as folder:
        if format is None:
            places = Places(index, 1)
            kept: list[Kept] = [
                *side_by_side([Memory(places, torch.randn(rows, 1, *shape)) for shape in shapes])
            ]
            target = torch.empty(rows, *shapes[0])
            at = {size: torch.arange(size) % rows for size in sizes}
            keeping = timed(
                {"": lambda size: target.index_copy_(0, at[size], said[at[size]])},
                *(sizes, seconds / 4, device, clock),
            )
        else:
            shelf = Shelf(Path(folder))
            kept, taken = [], {size: [0.0] for size in sizes}
            for number, shape in enumerate(shapes):
                own = said if number == 0 else torch.randn(rows, *shape)
                record, spent = _recorded(shelf, number, own, format, sizes, clock)
                kept.append(record)
                taken = spent if number == 0 else taken
            keeping = {"": Timing.through(taken)}
            joined = lifted({str(number): each for number, each in enumerate(kept)})
            kept = [*joined.values()] or kept
        remembered = [Remembered(each, {}) for each in kept]
        members = [Frozen(nn.Identity()) for _ in shapes]
        # Answers are kept for batches of one size.
        cached = {size: Cached(members, remembered, size) for size in sizes}
        asked = {size: _asked(rows, size) for size in sizes}
        found = timed(
            {"": lambda size: cached[size](asked[size], Progress(0, 0, 0.0))},
            *(sizes, seconds / 2, device, clock),
        )
    return found[""], keeping[""]


def _recorded(
    shelf: Shelf,
    number: int,
    said: torch.Tensor,
    format: Format,
    sizes: Sequence[int],
    clock: Clock,
) -> tuple[Record, dict[int, list[float]]]:
    """A record, and what its pieces took to write, by size."""
    key, index, rows = f"{number:032x}", torch.arange(len(said)), len(said)
    taken: dict[int, list[float]] = {size: [] for size in sizes}
    with shelf.locked(key):
        writer = shelf.writing(key, {}, index, 1, tuple(said.shape[1:]), format)
        start = 0
        for piece in [*[min(size, rows) for size in sizes] * 12, rows]:
            stop = min(start + piece, rows)
            if stop == start:
                break
            own = index[start:stop]
            before = clock()
            flat = said[start:stop].flatten(1)
            writer.write(0, start, format.encode(flat, own, torch.zeros_like(own)))
            if stop - start in taken:
                taken[stop - start].append(clock() - before)
            start = stop
        writer.finish()
    record = shelf.find(key)
    if record is None:
        raise RuntimeError("a record that was just written is not there")
    measured = {size: times for size, times in taken.items() if times}
    return record, {size: times[1:] or times for size, times in measured.items()}


def _asked(rows: int, size: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(rows, (size,), generator=generator)
    nothing = torch.zeros(size, dtype=torch.int64)
    return Batch(torch.zeros(size, 1), nothing, index, view=nothing)


def _asking(teacher: Frozen, batches: Mapping[int, Batch]) -> Callable[[int], object]:
    return lambda size: teacher.answer(batches[size])


def _kind(teacher: Frozen) -> Hashable:
    """What networks have in common that take the same time, as far as can be told."""
    shapes = tuple((name, tuple(each.shape)) for name, each in teacher.network.state_dict().items())
    known = shapes or id(teacher)
    return type(teacher.network).__qualname__, known, repr(teacher.network), teacher.taps
