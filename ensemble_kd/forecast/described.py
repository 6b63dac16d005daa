"""What a forecast is made from, and what it says: seconds, and bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ensemble_kd.forecast.spans import AT_ONCE, NO_BYTES, NOTHING, Line, Span, Timing


@dataclass(frozen=True)
class Data:
    """The samples, and how they are served.

    Attributes:
        train: training samples.
        val: validation samples.
        test: test samples.
        batch_size: on each process.
        accumulated: batches of an optimiser step, on each process.
        drop_last: whether training samples that fill no step are left out.
        views: recurring inputs of each training sample, of which answers can be kept; 0 for none.
        held: bytes of the samples in memory, on each process.
        train_limit: ``trainer.limit_train_batches``.
        val_limit: ``trainer.limit_val_batches``.
        every: epochs from one validation to the next.
    """

    train: int
    val: int
    test: int
    batch_size: int
    accumulated: int = 1
    drop_last: bool = True
    views: int = 0
    held: int = 0
    train_limit: int | float | None = None
    val_limit: int | float | None = None
    every: int = 1


@dataclass(frozen=True)
class Cluster:
    """Where a run takes place; each process has a machine, or a part of one, like this one.

    Attributes:
        ranks: processes that train together.
        bandwidth: bytes per second from each process to the others.
        latency: seconds for one message.
        started: seconds until the processes of a stage are there, where each stage starts its own.
        base: bytes that a process takes that does nothing yet.
    """

    ranks: int = 1
    bandwidth: float = 1.25e9
    latency: float = 5e-5
    started: float = 0.0
    base: int = 0


@dataclass(frozen=True)
class Answered:
    """A network that is asked and does not learn.

    Attributes:
        forward: of a batch, in inference.
        weights: bytes, buffers included.
        working: bytes that a forward pass takes beside the weights.
        held: bytes of one answer in memory, for one sample.
        rows: bytes of one answer on disk, for each part of it: logits, then features.
    """

    forward: Timing
    weights: int
    working: Line = NO_BYTES
    held: int = 0
    rows: tuple[int, ...] = ()


@dataclass(frozen=True)
class Work:
    """A stage.

    Attributes:
        name: of the stage.
        epochs: passes over the training split; 0 where nothing is trained.
        teachers: who are asked about every batch.
        kept: those of them whose answers are kept.
        step: of the learner, with its teachers' answers there, for one batch.
        validation: of one validation batch.
        served: preparing a training batch.
        beside: whether other processes prepare batches.
        looked_up: finding the kept answers of all ``kept`` together.
        epoch: what an epoch takes beside its batches.
        start: what a stage takes beside its epochs.
        weights: bytes of all that learns, buffers included.
        buffers: bytes of these buffers, which processes tell each other before each step.
        gradients: bytes.
        pieces: in which several processes send them.
        state: bytes of the optimisers' state.
        working: bytes that a step takes beside all these: activations and what is in between.
        players: optimisers that take turns, each after a backward pass of its own.
        artefact: bytes of what is delivered, and of what else was trained.
        snapshot: bytes that are kept after each epoch.
        network: bytes that the method itself sends in all, such as copies of replicas.
        summed: whether processes sum their gradients; replicas that train apart do not.
    """

    name: str
    epochs: int
    teachers: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    step: Timing = AT_ONCE
    validation: Timing = AT_ONCE
    served: Timing = AT_ONCE
    beside: bool = False
    looked_up: Timing = AT_ONCE
    epoch: Span = NOTHING
    start: Span = NOTHING
    weights: int = 0
    buffers: int = 0
    gradients: int = 0
    pieces: int = 1
    state: int = 0
    working: Line = NO_BYTES
    players: int = 1
    artefact: int = 0
    snapshot: int = 0
    network: int = 0
    summed: bool = True


@dataclass(frozen=True)
class Assessment:
    """What comes after training.

    Attributes:
        measured: seconds for so many samples of a held-out split, all predictors and pairs.
        described: seconds in which time and memory of the predictors are measured.
        folder: bytes of the run folder that do not depend on the data.
        predictions: bytes of all logits for each held-out sample.
        marks: bytes of its number and its class beside them.
        limit: bytes of predictions above which they are not kept.
        spoilt: seconds for so many samples that are spoilt in all ways that there are.
        spoilt_samples: of the test split, at most.
    """

    measured: Timing = AT_ONCE
    described: Span = NOTHING
    folder: int = 0
    predictions: int = 0
    marks: int = 0
    limit: float = math.inf
    spoilt: Timing = AT_ONCE
    spoilt_samples: int = 0


@dataclass(frozen=True)
class Job:
    """All that is to be forecast.

    Attributes:
        data: of the run.
        networks: all that are asked, by name.
        stages: in order.
        assessment: what follows.
        on_disk: whether kept answers lie on disk, and not in memory.
        written: encoding and writing a batch of answers of one teacher, or keeping them in memory.
        shard_bytes: of a file of answers, at most.
    """

    data: Data
    networks: Mapping[str, Answered]
    stages: Sequence[Work]
    assessment: Assessment = field(default_factory=Assessment)
    on_disk: bool = False
    written: Timing = AT_ONCE
    shard_bytes: int = 64 * 2**20


@dataclass(frozen=True)
class Row:
    """What one part of a run takes.

    Attributes:
        name: of the stage; ``answers for STAGE``; ``evaluation``; ``total``.
        steps: optimiser steps.
        seconds: from its beginning to its end.
        memory: bytes of a process at the worst moment.
        disk: bytes that are there afterwards and were not before.
        step_network: bytes that all processes send for one step.
        network: bytes that they send in all.
    """

    name: str
    steps: int
    seconds: Span
    memory: int
    disk: int
    step_network: int = 0
    network: int = 0


@dataclass(frozen=True)
class Forecast:
    """What a run takes, part by part, and in all: times and sizes summed, memory the largest."""

    rows: tuple[Row, ...]
    total: Row
