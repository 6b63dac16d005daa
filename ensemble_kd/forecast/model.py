"""The arithmetic of a forecast: what was measured goes in, what a run will take comes out.

Nothing here measures, and nothing here knows PyTorch. Times are seconds and sizes bytes.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from ensemble_kd.forecast import sizes
from ensemble_kd.forecast.described import Cluster, Data, Forecast, Job, Row, Work
from ensemble_kd.forecast.spans import NOTHING, Span


def forecast(job: Job, cluster: Cluster) -> Forecast:
    """What a job takes.

    Args:
        job: what is to be done, and what its parts take.
        cluster: where.
    """
    rows: list[Row] = []
    there: set[str] = set()
    for number, work in enumerate(job.stages):
        needed = {name for each in job.stages[number:] for name in each.teachers}
        # Answers that no later stage needs are given up, unless they are on disk.
        there = there if job.on_disk else there & needed
        fresh = [name for name in work.kept if name not in there]
        there |= set(fresh)
        if fresh:
            rows.append(answering(job, work, fresh, there, cluster))
        rows.append(training(job, work, there, cluster))
    rows.append(assessing(job, cluster))
    seconds = NOTHING
    for row in rows:
        seconds = seconds.plus(row.seconds)
    total = Row(
        "total",
        sum(row.steps for row in rows),
        seconds,
        max(row.memory for row in rows),
        sum(row.disk for row in rows),
        max(row.step_network for row in rows),
        sum(row.network for row in rows),
    )
    return Forecast(tuple(rows), total)


def communicated(work: Work, cluster: Cluster) -> tuple[int, float]:
    """Bytes that all processes send for one batch that ends a step, and the seconds it takes.

    Each backward pass of a player has the whole gradient summed; before each forward pass the first
    process tells the others its buffers. A piece takes 2 (R - 1) messages, one after the other.
    """
    ranks = cluster.ranks
    if ranks == 1 or not work.summed:
        return 0, 0.0
    own = sizes.reduced(work.gradients, ranks)
    once = 2 * (ranks - 1) * work.pieces * cluster.latency + own / cluster.bandwidth
    told = work.buffers / cluster.bandwidth + (cluster.latency if work.buffers else 0.0)
    in_all = work.players * ranks * own + (ranks - 1) * work.buffers
    return in_all, work.players * once + told


def answering(
    job: Job, work: Work, fresh: Sequence[str], there: Collection[str], cluster: Cluster
) -> Row:
    """Asking teachers about all inputs that recur, in batches of the training's size.

    Args:
        job: all that is to be done.
        work: the stage that hears them first.
        fresh: who are asked.
        there: whose answers are there at the end of it.
        cluster: where; one process asks.
    """
    data, size = job.data, job.data.batch_size
    once = work.served.at(size)
    for name in fresh:
        once = once.plus(job.networks[name].forward.at(size)).plus(job.written.at(size))
    count = data.views * math.ceil(data.train / size)
    disk = 0
    if job.on_disk:
        disk = sum(_on_disk(job, data.train, data.views, job.networks[n].rows) for n in fresh)
    working = max(job.networks[name].working.at(size) for name in fresh)
    memory = cluster.base + _present(job, there) + round(working)
    return Row(f"answers for {work.name}", 0, once.times(count), memory, disk)


def training(job: Job, work: Work, there: Collection[str], cluster: Cluster) -> Row:
    """Training a stage.

    Time: every process goes through its share; per batch the data, the teachers that answer live,
    the answers that are looked up, the learner's step and, with several processes, the gradient,
    which at best is sent while the backward pass goes on. Memory: what is there in any case, and
    the largest of what teachers and learner need while they compute, which they do in turn.

    Args:
        job: all that is to be done.
        work: the stage.
        there: whose answers are there.
        cluster: where.
    """
    data = job.data
    if not work.epochs:
        return Row(work.name, 0, NOTHING, cluster.base + _present(job, there), work.artefact)
    batches, validated = _batches(data, cluster.ranks)
    steps = sizes.steps(batches, data.accumulated)
    sent, alone = communicated(work, cluster)
    share = data.train // cluster.ranks
    sizes_of = _batch_sizes(share, batches, data)
    epoch = work.epoch.plus(Span(0.0, steps * alone, steps * alone))
    for size, count in sizes_of:
        epoch = epoch.plus(_batch(job, work, size).times(count))
    of_val = min(data.batch_size, math.ceil(data.val / cluster.ranks))
    validation = work.validation.at(of_val).times(validated)
    seconds = work.start.plus(epoch.times(work.epochs))
    seconds = seconds.plus(validation.times(work.epochs // data.every))
    seconds = seconds.plus(Span(*[cluster.started] * 3))
    live = [name for name in work.teachers if name not in work.kept]
    asked = max((job.networks[name].working.at(data.batch_size) for name in live), default=0.0)
    own = work.weights + work.gradients + work.state
    # Gradients are copied into the pieces in which they are sent.
    own += work.gradients if cluster.ranks > 1 and work.summed else 0
    working = max(asked, work.working.at(data.batch_size))
    memory = cluster.base + _present(job, there) + own + round(working)
    total = steps * work.epochs
    network = total * sent + work.network
    if cluster.ranks > 1 and work.summed:
        network += (cluster.ranks - 1) * work.weights  # all begin with the weights of the first
    disk = work.artefact + work.epochs * work.snapshot
    return Row(work.name, total, seconds, memory, disk, sent, network)


def assessing(job: Job, cluster: Cluster) -> Row:
    """Measuring all predictors on the validation and the test split, in one process."""
    data, after = job.data, job.assessment
    spoilt = after.spoilt.at(min(data.test, after.spoilt_samples))
    seconds = after.described.plus(spoilt if after.spoilt_samples else NOTHING)
    disk = after.folder
    for samples in (data.val, data.test):
        seconds = seconds.plus(after.measured.at(samples))
        kept = samples * (after.predictions + after.marks)
        disk += kept if max(data.val, data.test) * after.predictions <= after.limit else 0
        if job.on_disk:
            heard = {name for work in job.stages for name in work.teachers}
            logits = [job.networks[name] for name in heard if job.networks[name].rows]
            disk += sum(_on_disk(job, samples, 1, (each.held,)) for each in logits)
    working = max((each.working.at(data.batch_size) for each in job.networks.values()), default=0)
    said = (data.val + data.test) * after.predictions
    memory = cluster.base + _present(job, ()) + round(working) + said
    return Row("evaluation", 0, seconds, memory, disk)


def _batch(job: Job, work: Work, size: float) -> Span:
    """One training batch of so many samples."""
    once = work.step.at(size)
    for name in work.teachers:
        if name not in work.kept:
            once = once.plus(job.networks[name].forward.at(size))
    if work.kept:
        once = once.plus(work.looked_up.at(size))
    served = work.served.at(size)
    return once.atop(served) if work.beside else once.plus(served)


def _batches(data: Data, ranks: int) -> tuple[int, int]:
    """Training and validation batches of an epoch, on the process with the most of them."""
    trained = sizes.batches(data.train, data.batch_size, ranks, data.accumulated, data.drop_last)
    validated = math.ceil(math.ceil(data.val / ranks) / data.batch_size)
    return sizes.limited(trained, data.train_limit), sizes.limited(validated, data.val_limit)


def _batch_sizes(share: int, batches: int, data: Data) -> list[tuple[int, int]]:
    """Sizes of batches, and how many there are of each, in an epoch of one process."""
    whole = min(batches, share // data.batch_size)
    rest = share - whole * data.batch_size if batches > whole else 0
    return [(data.batch_size, whole), (rest, batches - whole)]


def _present(job: Job, there: Collection[str]) -> int:
    """Bytes that are in memory all the time: samples, networks that teach, answers in memory."""
    heard = {name for work in job.stages for name in work.teachers}
    networks = sum(job.networks[name].weights for name in heard)
    answers = 0
    if not job.on_disk:
        rows = job.data.train * job.data.views
        answers = sum(rows * job.networks[name].held for name in there)
    return job.data.held + networks + answers


def _on_disk(job: Job, samples: int, views: int, rows: Sequence[int]) -> int:
    """Bytes of all that one teacher said, on disk."""
    return sum(
        sizes.record(samples, views, row) + sizes.manifest(samples, views, row, job.shard_bytes)
        for row in rows
    )
