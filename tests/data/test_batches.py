from __future__ import annotations

import pytest
import torch

from ensemble_kd.data import Batches, Noise, Table
from ensemble_kd.data.orders import Place, Sequential, Shuffled
from ensemble_kd.errors import UserError
from ensemble_kd.types import Batch


def bytes_table(mask: torch.Tensor | None = None) -> Table:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(0, 256, (30, 3, 4, 5), dtype=torch.uint8, generator=generator)
    return Table(inputs, torch.arange(30) % 4, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7), mask)


def test_bytes_are_read_as_unit_interval_and_standardised() -> None:
    table = bytes_table()
    rows = torch.tensor([7, 7, 2])
    batch = table.batch(rows)
    mean = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)[:, None, None]
    std = torch.tensor([0.5, 0.6, 0.7], dtype=torch.float64)[:, None, None]
    expected = (table.inputs.index_select(0, rows).double() / 255 - mean) / std
    assert batch.inputs.dtype == torch.float32
    torch.testing.assert_close(batch.inputs.double(), expected, atol=1e-6, rtol=1e-6)
    assert batch.target.tolist() == [3, 3, 2]
    assert torch.equal(batch.index, rows)
    assert batch.mask is None


def test_floats_are_taken_as_they_are() -> None:
    inputs = torch.randn(6, 7)
    batch = Table(inputs, torch.arange(6)).batch(torch.arange(6))
    assert torch.equal(batch.inputs, inputs)
    halved = Table(inputs, torch.arange(6), 1.0, 2.0).batch(torch.arange(6))
    assert torch.equal(halved.inputs, (inputs - 1) / 2)


def tensors(batch: Batch) -> list[torch.Tensor]:
    return [part for part in batch if isinstance(part, torch.Tensor)]


def test_a_batch_shares_no_memory_with_the_table() -> None:
    mask = torch.ones(6, dtype=torch.bool)
    table = Table(torch.randn(6, 7), torch.arange(6), mask=mask)
    loader = Batches(table, Sequential(torch.arange(6), 3), Place)
    before = [tensor.clone() for batch in loader for tensor in tensors(batch)]
    for batch in loader:
        for tensor in tensors(batch):
            tensor.zero_()
    after = [tensor for batch in loader for tensor in tensors(batch)]
    assert len(after) == 10
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_mask_is_read_by_row() -> None:
    mask = torch.arange(30) < 3
    batch = bytes_table(mask).batch(torch.tensor([5, 1]))
    assert batch.mask is not None
    assert batch.mask.tolist() == [False, True]


def test_augmentation_comes_before_standardisation() -> None:
    table = Table(torch.zeros(4, 1, 8, 8), torch.arange(4), 5.0, 10.0)
    rows = torch.arange(4)
    noise = Noise(1.0)(torch.zeros(4, 1, 8, 8), rows, 2, 3)
    batch = table.batch(rows, visits=2, augment=Noise(1.0), seed=3)
    torch.testing.assert_close(batch.inputs, (noise - 5) / 10)


def test_the_place_is_asked_at_each_iteration() -> None:
    places = [Place(0)]
    loader = Batches(bytes_table(), Shuffled(torch.arange(30), 8, seed=0), lambda: places[0])
    first = [batch.index.tolist() for batch in loader]
    assert [batch.index.tolist() for batch in loader] == first
    started = iter(loader)
    places[0] = Place(1)
    assert [batch.index.tolist() for batch in started] == first
    assert [batch.index.tolist() for batch in loader] != first
    assert len(loader) == 3
    places[0] = Place(1, rank=1, world=3)
    assert len(loader) == 1


def test_views_are_independent_and_the_first_stays() -> None:
    table, rows = bytes_table(), torch.arange(30)
    one = table.batch(rows, 4, Noise(0.1), seed=3)
    three = table.batch(rows, 4, Noise(0.1), seed=3, views=3)
    assert one.views == ()
    assert torch.equal(one.inputs, three.inputs)
    assert len(three.views) == 2
    plain = table.batch(rows).inputs
    noises = [view - plain for view in (three.inputs, *three.views)]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        both = torch.stack([noises[first].flatten(), noises[second].flatten()])
        assert abs(float(both.corrcoef()[0, 1])) < 0.1
    assert all(torch.equal(view, plain) for view in table.batch(rows, views=2).views)


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ((0.1, 0.2), 1.0, "mean must be one finite number or one for each of 3 channels"),
        (float("nan"), 1.0, "mean must be one finite number"),
        (0.0, 0.0, "std must be > 0, got 0.0"),
        (0.0, (1.0, -1.0, 1.0), "std must be > 0"),
    ],
)
def test_scales_that_do_not_fit(
    mean: float | tuple[float, ...], std: float | tuple[float, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        Table(torch.zeros(2, 3, 4, 4), torch.arange(2), mean, std)
