"""How many steps a stage makes, and how many bytes things take: counted, not measured."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

INDEX_HEADER = 128
"""Bytes before the numbers in ``index.npy``."""

BUCKET, FIRST_BUCKET = 25 * 2**20, 2**20
"""Bytes of gradient that DistributedDataParallel reduces at a time; the first time fewer."""

WIDTHS = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "U8": 1, "BOOL": 1}
"""Bytes of a number, by the name of its type in a file of safetensors."""


def batches(
    samples: int, batch_size: int, ranks: int = 1, accumulated: int = 1, drop_last: bool = True
) -> int:
    """Training batches of an epoch, on each process.

    The samples are shared out evenly, what cannot be is left out. Then what fills no optimiser
    step is left out where ``drop_last`` says so, unless nothing would be left.

    Args:
        samples: of the training split.
        batch_size: on each process.
        ranks: processes.
        accumulated: batches of a step, on each process.
        drop_last: whether an epoch ends with its last whole step.
    """
    share = samples // ranks
    whole = share // (batch_size * accumulated) * accumulated
    return whole if drop_last and whole else math.ceil(share / batch_size)


def limited(batches: int, limit: int | float | None) -> int:
    """Batches that the trainer takes: a whole number is a limit, another one a share."""
    if limit is None:
        return batches
    return min(batches, limit) if isinstance(limit, int) else int(batches * limit)


def steps(batches: int, accumulated: int = 1) -> int:
    """Optimiser steps of so many batches; the last may have fewer of them."""
    return math.ceil(batches / accumulated)


def record(samples: int, views: int, row_bytes: int) -> int:
    """Bytes of the rows and of the index of what one teacher said, without the manifest.

    Args:
        samples: how many.
        views: of each sample.
        row_bytes: of one answer in its format.
    """
    return samples * views * row_bytes + INDEX_HEADER + 8 * samples


def manifest(samples: int, views: int, row_bytes: int, shard_bytes: int) -> int:
    """Bytes of the manifest of such a record, nearly: a digest for each shard, and 2 kB."""
    rows = max(1, shard_bytes // row_bytes)
    return 2000 + 96 * views * math.ceil(samples / rows)


def safetensors(tensors: Mapping[str, tuple[str, Sequence[int]]], metadata: int = 0) -> int:
    """Bytes of a file of safetensors.

    Eight bytes for the length of the header; the header, JSON filled up with spaces to a multiple
    of eight; then the numbers, wide types first and names in order within a type.

    Args:
        tensors: type and shape, by name.
        metadata: bytes that the header has beside them.
    """
    header: dict[str, object] = {}
    end = 0
    for name in sorted(tensors, key=lambda each: (-WIDTHS[tensors[each][0]], each)):
        kind, shape = tensors[name]
        start, end = end, end + WIDTHS[kind] * math.prod(shape)
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [start, end]}
    written = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return 8 + math.ceil((len(written) + metadata) / 8) * 8 + end


def reduced(gradients: int, ranks: int) -> int:
    """Bytes that each process sends to have a gradient summed over all: 2 (R - 1) / R of it.

    Of a ring: R - 1 times a share of 1/R to sum, and as often to hand the sums on.

    Source: Patarasuk and Yuan, Bandwidth optimal all-reduce algorithms for clusters of workstations
    (J. Parallel Distrib. Comput. 69, 2009).

    Args:
        gradients: bytes.
        ranks: processes, R.
    """
    return round(2 * (ranks - 1) / ranks * gradients)


def buckets(gradients: Sequence[int]) -> int:
    """In how many pieces DistributedDataParallel reduces the gradients of some parameters.

    From the last parameter on they are put together until a piece has its size; none is split.

    Args:
        gradients: bytes of each parameter, in the order in which a module has them.
    """
    count = filled = 0
    for size in reversed(gradients):
        filled += size
        if filled >= (BUCKET if count else FIRST_BUCKET):
            count, filled = count + 1, 0
    return count + (filled > 0)


def exchanged(weights: int, replicas: int, steps: int, burn_in: int, exchange: int) -> int:
    """Bytes that replicas on machines of their own receive in all, to have each other's copies.

    Args:
        weights: bytes of one replica, buffers included.
        replicas: how many.
        steps: optimiser steps of the stage.
        burn_in: steps before the first copy.
        exchange: steps from one copy to the next.
    """
    copies = math.ceil(max(0, steps - burn_in) / exchange)
    return copies * replicas * (replicas - 1) * weights
