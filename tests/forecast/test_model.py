"""The arithmetic of a forecast, against loops that go through everything one by one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from ensemble_kd.forecast import (
    Answered,
    Assessment,
    Cluster,
    Data,
    Job,
    Line,
    Row,
    Span,
    Timing,
    Work,
    forecast,
    sizes,
)
from ensemble_kd.forecast.spans import span

DATA = Data(train=203, val=50, test=70, batch_size=16, held=10_000)


def timing(fixed: float, each: float) -> Timing:
    return Timing(Line(fixed, each), 0.5, 2.0)


def asked(number: int) -> Answered:
    weights, held = 1000 * number, 40
    return Answered(timing(0.1 * number, 0.01), weights, Line(0, 300), held, (held,))


NETWORKS = {f"teacher/{number}": asked(number + 1) for number in range(3)}


def work(name: str, **changed: object) -> Work:
    made = Work(
        name,
        epochs=3,
        teachers=tuple(NETWORKS),
        step=timing(0.2, 0.02),
        validation=timing(0.05, 0.001),
        served=timing(0.01, 0.0005),
        looked_up=timing(0.003, 0.0001),
        epoch=Span(0.5, 1.0, 2.0),
        start=Span(2.0, 3.0, 4.0),
        weights=4000,
        buffers=400,
        gradients=3600,
        state=7200,
        working=Line(100, 50),
        artefact=4500,
        snapshot=70,
    )
    return replace(made, **changed)  # type: ignore[arg-type]


def batch_sizes(data: Data, ranks: int) -> list[int]:
    """Sizes of the training batches of one process in an epoch, dealt out sample by sample."""
    share = [sample for sample in range(data.train - data.train % ranks) if sample % ranks == 0]
    cut = [share[n : n + data.batch_size] for n in range(0, len(share), data.batch_size)]
    steps = [cut[n : n + data.accumulated] for n in range(0, len(cut), data.accumulated)]
    size = data.accumulated * data.batch_size
    whole = [step for step in steps if sum(map(len, step)) == size]
    chosen = whole if data.drop_last and whole else steps
    return [len(part) for step in chosen for part in step]


def seconds(stage: Work, data: Data, cluster: Cluster, kept: Sequence[str]) -> float:
    """The middle of what a stage takes, batch by batch."""
    total = stage.start.middle + cluster.started
    served = batch_sizes(data, cluster.ranks)
    for epoch in range(stage.epochs):
        total += stage.epoch.middle
        for number, size in enumerate(served):
            total += 0.2 + 0.02 * size + 0.01 + 0.0005 * size
            for index, name in enumerate(stage.teachers):
                total += 0.0 if name in kept else 0.1 * (index + 1) + 0.01 * size
            total += 0.003 + 0.0001 * size if kept else 0.0
            ends = (number + 1) % data.accumulated == 0 or number + 1 == len(served)
            if cluster.ranks > 1 and ends:
                total += 2 * (cluster.ranks - 1) * cluster.latency  # a single piece
                share = 2 * (cluster.ranks - 1) / cluster.ranks
                total += share * stage.gradients / cluster.bandwidth
                total += stage.buffers / cluster.bandwidth + cluster.latency
        if (epoch + 1) % data.every == 0:
            share = math.ceil(data.val / cluster.ranks)
            for _ in range(0, share, data.batch_size):
                total += 0.05 + 0.001 * data.batch_size
    return total


@pytest.mark.parametrize(
    ("ranks", "accumulated", "drop_last", "every", "epochs"),
    list(itertools.product((1, 2, 3), (1, 3), (True, False), (1, 2), (1, 3))),
)
def test_a_stage_is_the_sum_of_its_batches(
    ranks: int, accumulated: int, drop_last: bool, every: int, epochs: int
) -> None:
    data = replace(DATA, accumulated=accumulated, drop_last=drop_last, every=every, train=208)
    cluster = Cluster(ranks, bandwidth=1e5, latency=0.01, started=5.0, base=7)
    stage = work("student", epochs=epochs)
    row = forecast(Job(data, NETWORKS, [stage]), cluster).rows[0]
    assert row.seconds.middle == pytest.approx(seconds(stage, data, cluster, ()))
    served = batch_sizes(data, ranks)
    assert row.steps == epochs * math.ceil(len(served) / accumulated)
    assert row.seconds.low < row.seconds.middle < row.seconds.high


def rows(job: Job, cluster: Cluster | None = None) -> dict[str, Row]:
    return {row.name: row for row in forecast(job, cluster or Cluster()).rows}


def test_kept_answers_are_asked_for_once_and_then_looked_up() -> None:
    data = replace(DATA, views=2)
    names = tuple(NETWORKS)
    first = work("assistant/0", kept=names[:2])
    second = work("student", kept=names[:2])
    written = timing(0.002, 0.0001)
    found = rows(Job(data, NETWORKS, [first, second], written=written))
    assert list(found) == ["answers for assistant/0", "assistant/0", "student", "evaluation"]
    expected = 0.0
    for _, start in itertools.product(range(2), range(0, data.train, data.batch_size)):
        assert start < data.train
        expected += 0.01 + 0.0005 * 16  # the batch is prepared once, for all teachers
        for number in (1, 2):
            expected += 0.1 * number + 0.01 * 16 + 0.002 + 0.0001 * 16
    assert found["answers for assistant/0"].seconds.middle == pytest.approx(expected)
    for stage in (first, second):
        own = seconds(stage, data, Cluster(), stage.kept)
        assert found[stage.name].seconds.middle == pytest.approx(own)


def test_answers_take_memory_until_nobody_needs_them() -> None:
    data = replace(DATA, views=1)
    names = tuple(NETWORKS)
    first = work("assistant/0", teachers=names, kept=names)
    second = work("assistant/1", teachers=names[:1], kept=names[:1])
    last = work("student", teachers=(), kept=())
    found = rows(Job(data, NETWORKS, [first, second, last]), Cluster(base=5))
    networks = 1000 + 2000 + 3000
    own = 4000 + 3600 + 7200 + 100 + 50 * 16
    always = 5 + data.held + networks
    answers = data.train * 40
    assert found["assistant/0"].memory == always + 3 * answers + own
    assert found["assistant/1"].memory == always + answers + own
    assert found["student"].memory == always + own
    assert found["answers for assistant/0"].memory == always + 3 * answers + 300 * 16


def test_live_teachers_compute_before_the_student_does() -> None:
    heavy = {"teacher/0": replace(asked(1), working=Line(0, 9000))}
    found = rows(Job(DATA, heavy, [work("student", teachers=("teacher/0",))]))
    assert found["student"].memory == DATA.held + 1000 + 4000 + 3600 + 7200 + 9000 * 16


def test_disk_holds_answers_artefacts_and_predictions() -> None:
    data = replace(DATA, views=2)
    names = tuple(NETWORKS)
    after = Assessment(folder=900, predictions=80, marks=16)
    job = Job(data, NETWORKS, [work("student", kept=names)], after, on_disk=True)
    found = rows(job)
    one = sizes.record(data.train, 2, 40) + sizes.manifest(data.train, 2, 40, job.shard_bytes)
    assert found["answers for student"].disk == 3 * one
    assert found["student"].disk == 4500 + 3 * 70
    held_out = sum(
        3 * (sizes.record(each, 1, 40) + sizes.manifest(each, 1, 40, job.shard_bytes))
        for each in (data.val, data.test)
    )
    assert found["evaluation"].disk == 900 + 96 * (data.val + data.test) + held_out
    small = replace(job, assessment=replace(after, limit=80 * 69), on_disk=False)
    assert rows(small)["evaluation"].disk == 900
    enough = replace(small, assessment=replace(after, limit=80 * 70))
    assert rows(enough)["evaluation"].disk == 900 + 96 * (data.val + data.test)


@pytest.mark.parametrize(("ranks", "players"), [(2, 1), (4, 1), (4, 2)])
def test_bytes_between_processes(ranks: int, players: int) -> None:
    stage = work("student", players=players, network=11)
    row = rows(Job(DATA, NETWORKS, [stage]), Cluster(ranks))["student"]
    in_all = 0
    for rank in range(ranks):
        for _ in range(players):
            in_all += sum(3600 // ranks for turn in range(2 * (ranks - 1)))
        in_all += 400 if rank else 0  # every process but the first receives the buffers
    assert row.step_network == in_all
    assert row.network == row.steps * in_all + (ranks - 1) * 4000 + 11
    assert rows(Job(DATA, NETWORKS, [work("student")]))["student"].network == 0


def test_replicas_that_train_apart_sum_no_gradients() -> None:
    stage = work("student", summed=False, network=500)
    row = rows(Job(DATA, NETWORKS, [stage]), Cluster(4))["student"]
    assert (row.step_network, row.network) == (0, 500)
    beside = rows(Job(DATA, NETWORKS, [work("student")]), Cluster(4))["student"]
    assert beside.memory == row.memory + 3600  # what is sent is a copy of the gradient


def test_work_beside_counts_where_it_is_the_slower() -> None:
    slow = timing(50.0, 0.0)
    stage = work("student", served=slow, beside=True, teachers=())
    row = rows(Job(DATA, NETWORKS, [stage]))["student"]
    batches = 203 // 16
    validation = 4 * (0.05 + 0.001 * 16)
    assert row.seconds.middle == pytest.approx(3 + 3 * (1 + batches * 50 + validation))


def test_the_total_is_all_parts_and_the_worst_moment() -> None:
    found = forecast(Job(DATA, NETWORKS, [work("one"), work("two")]), Cluster(2))
    for key in ("steps", "disk", "network"):
        assert getattr(found.total, key) == sum(getattr(row, key) for row in found.rows)
    assert found.total.memory == max(row.memory for row in found.rows)
    for place in range(3):
        assert found.total.seconds[place] == pytest.approx(
            sum(row.seconds[place] for row in found.rows)
        )


def test_evaluation_counts_both_splits_and_what_is_spoilt() -> None:
    after = Assessment(timing(1.0, 0.1), Span(1, 2, 3), spoilt=timing(0.5, 0.2), spoilt_samples=60)
    row = rows(Job(DATA, {}, [], after))["evaluation"]
    assert row.seconds.middle == pytest.approx(2 + 1 + 5 + 1 + 7 + 0.5 + 0.2 * 60)


def test_nothing_is_trained_in_no_epochs() -> None:
    row = rows(Job(DATA, NETWORKS, [work("control/random_teacher", epochs=0)]))
    assert row["control/random_teacher"].seconds == (0, 0, 0)
    assert row["control/random_teacher"].disk == 4500


def test_lines_go_through_their_points_and_never_below_zero() -> None:
    assert Line.through((10, 3.0), (20, 5.0)) == pytest.approx((1.0, 0.2))
    assert Line.through((10, 1.0), (20, 5.0)) == pytest.approx((0.0, 0.25))
    assert Line.through((10, 5.0), (20, 4.0)) == pytest.approx((4.0, 0.0))
    found = Timing.through({10: [2.0, 3.0, 4.0], 20: [5.0, 5.0, 5.0]})
    assert found.at(30) == pytest.approx(Span(7 * (2.5 / 3 + 1) / 2, 7.0, 7 * (3.5 / 3 + 1) / 2))
    assert Timing.through({8: [4.0]}).at(2).middle == 1.0
    assert span([1.0]) == (1, 1, 1)
    assert span([4.0, 1.0, 2.0, 3.0, 5.0]) == (2, 3, 4)
