from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ensemble_kd.data.orders import Order, Place, Sequential, Shuffled

ROWS = st.lists(st.integers(0, 500), min_size=1, max_size=60, unique=True).map(torch.tensor)


def batches(order: Order, epoch: int = 0, rank: int = 0, world: int = 1) -> list[list[int]]:
    place = Place(epoch, rank, world)
    rows: list[Tensor] = [rows for rows, _ in order.rows(place)]
    assert len(rows) == order.batches(place)
    return [part.tolist() for part in rows]


@given(ROWS, st.integers(1, 20), st.integers(1, 4))
def test_sequential_serves_each_row_once(rows: Tensor, size: int, world: int) -> None:
    order = Sequential(rows, size)
    served = [batches(order, rank=rank, world=world) for rank in range(world)]
    assert sorted(row for rank in served for batch in rank for row in batch) == sorted(
        rows.tolist()
    )
    assert all(len(batch) == size for rank in served for batch in rank[:-1])
    alone = batches(order)
    assert [row for batch in alone for row in batch] == rows.tolist()


@given(ROWS, st.integers(1, 20), st.integers(1, 4), st.booleans(), st.integers(0, 5))
def test_shuffled_shares_are_disjoint_and_equal(
    rows: Tensor, size: int, world: int, drop_last: bool, epoch: int
) -> None:
    order = Shuffled(rows, size, seed=3, drop_last=drop_last)
    served = [batches(order, epoch, rank, world) for rank in range(world)]
    assert len({tuple(map(len, rank)) for rank in served}) == 1
    flat = [row for rank in served for batch in rank for row in batch]
    assert len(set(flat)) == len(flat)
    assert set(flat) <= set(rows.tolist())
    share = len(rows) // world
    kept = share - share % size if drop_last and share > size else share
    assert len(flat) == kept * world


def test_one_process_with_the_larger_batch_sees_the_same() -> None:
    rows = torch.arange(100, 164)
    two = [batches(Shuffled(rows, 8, seed=3), 2, rank, 2) for rank in (0, 1)]
    one = batches(Shuffled(rows, 16, seed=3), 2)
    for number, batch in enumerate(one):
        assert sorted(batch) == sorted(two[0][number] + two[1][number])


def test_shuffled_is_a_function_of_seed_and_epoch() -> None:
    rows = torch.arange(50)
    once = batches(Shuffled(rows, 50, seed=3), epoch=1)
    torch.manual_seed(9)
    assert batches(Shuffled(rows, 50, seed=3), epoch=1) == once
    assert batches(Shuffled(rows, 50, seed=4), epoch=1) != once
    assert batches(Shuffled(rows, 50, seed=3), epoch=2) != once
    assert once[0] != sorted(once[0])


def test_shuffled_is_fair() -> None:
    """Each row comes first about equally often."""
    order = Shuffled(torch.arange(5), 5, seed=0)
    first = [batches(order, epoch)[0][0] for epoch in range(1000)]
    counts = torch.bincount(torch.tensor(first), minlength=5)
    assert int(counts.min()) > 150


def test_dropped_rows_come_in_another_epoch() -> None:
    order = Shuffled(torch.arange(11), 4, seed=0)
    seen = {row for epoch in range(8) for batch in batches(order, epoch) for row in batch}
    assert seen == set(range(11))


def test_fewer_rows_than_a_batch_are_one_batch() -> None:
    assert [len(batch) for batch in batches(Shuffled(torch.arange(3), 8, seed=0))] == [3]
    assert batches(Shuffled(torch.arange(3), 8, seed=0), world=4) == []


@given(ROWS, st.integers(0, 100), st.integers(1, 20), st.integers(0, 3))
def test_cycles_spend_the_budget_of_the_larger_set(
    rows: Tensor, more: int, size: int, epoch: int
) -> None:
    total = len(rows) + more
    order = Shuffled(rows, size, seed=3, size=total, drop_last=False)
    place = Place(epoch)
    assert order.batches(place) == Shuffled(
        torch.arange(total), size, seed=3, drop_last=False
    ).batches(place)
    served = list(order.rows(place))
    seen = torch.cat([part for part, _ in served])
    visits = torch.cat([torch.as_tensor(visit).expand(len(part)) for part, visit in served])
    assert len(seen) == total
    # Whole rounds, each a permutation, each visit of a row with its own number.
    for start in range(0, total - len(rows) + 1, len(rows)):
        assert sorted(seen[start : start + len(rows)].tolist()) == sorted(rows.tolist())
    pairs = list(zip(seen.tolist(), visits.tolist(), strict=True))
    assert len(set(pairs)) == total
    rounds = -(-total // len(rows))
    assert {visit // rounds for visit in visits.tolist()} == {epoch}


def test_rounds_are_shuffled_afresh() -> None:
    (rows,) = batches(Shuffled(torch.arange(20), 40, seed=3, size=40))
    assert rows[:20] != rows[20:]


def test_without_a_larger_budget_the_visit_is_the_epoch() -> None:
    ((_, visits),) = Shuffled(torch.arange(5), 5, seed=3).rows(Place(epoch=7))
    assert torch.as_tensor(visits).unique().tolist() == [7]


@given(
    ROWS, st.integers(1, 6), st.integers(1, 3), st.integers(1, 3), st.booleans(), st.integers(0, 3)
)
def test_a_step_is_one_larger_batch(
    rows: Tensor, size: int, world: int, accumulated: int, drop_last: bool, epoch: int
) -> None:
    order = Shuffled(rows, size, seed=1, drop_last=drop_last)
    whole = Shuffled(rows, size * world * accumulated, seed=1, drop_last=drop_last)
    usable = len(rows) - len(rows) % world
    large = [
        part[: usable - i * whole.batch_size]
        for i, (part, _) in enumerate(whole.rows(Place(epoch)))
    ]
    for rank in range(world):
        place = Place(epoch, rank, world, accumulated)
        own = list(order.rows(place))
        steps = [step for step in order.steps(place) if step is not None]
        assert len(own) == len(steps) == order.batches(place)
        for number, ((part, _), step) in enumerate(zip(own, steps, strict=True)):
            assert set(part.tolist()) <= set(step.tolist())
            assert torch.equal(step, large[number // accumulated])
