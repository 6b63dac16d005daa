from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch

from ensemble_kd.data import InMemory, Munge
from ensemble_kd.errors import UserError
from ensemble_kd.types import UNLABELLED

Array = npt.NDArray[np.float32]


def table(samples: int, columns: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(samples, columns)).astype(np.float32)


def reference_exchange(inputs: Array) -> list[list[float]]:
    """One pass in which every attribute of every pair is exchanged, by naive loops."""
    real = [[float(value) for value in row] for row in inputs]
    made = [list(row) for row in real]
    for row in range(len(real)):
        best, least = -1, float("inf")
        for other in range(len(real)):
            distance = sum((a - b) ** 2 for a, b in zip(real[row], real[other], strict=True))
            if other != row and distance < least:
                best, least = other, distance
        made[row], made[best] = made[best], made[row]
    return made


@pytest.mark.parametrize(("samples", "columns"), [(2, 1), (5, 3), (40, 6)])
def test_discrete_attributes_are_exchanged_with_the_nearest(samples: int, columns: int) -> None:
    inputs = table(samples, columns)
    made = Munge(p=1.0, discrete=range(columns))(inputs, seed=0)
    np.testing.assert_array_equal(made, np.array(reference_exchange(inputs), np.float32))


@pytest.mark.parametrize("s", [0.5, 4.0])
def test_continuous_attributes_are_normal_around_the_others_value(s: float) -> None:
    inputs = np.stack([np.zeros(20_000), np.full(20_000, 3.0)]).astype(np.float32)
    munge = Munge(p=1.0, s=s)
    first, second = munge(inputs, seed=1).astype(np.float64)
    # The first sample's turn puts it around 3; the second's turn then exchanges them once more.
    once = 3.0 / s
    assert np.corrcoef(first, second)[0, 1] == pytest.approx(0.0, abs=0.75)
    assert first.mean() == pytest.approx(0.0, abs=0.12 * (1 + once))
    assert second.mean() == pytest.approx(3.0, abs=0.12 * (1 + once))
    # E (a - b)^2 = 9 + 2 (3/s)^2 after one exchange; each of the two adds that over s^2.
    expected = np.sqrt(once**2 + (9 + 2 * once**2) / s**2)
    assert first.std() == pytest.approx(expected, rel=0.05)
    assert second.std() == pytest.approx(expected, rel=0.05)


def test_attributes_change_with_the_probability() -> None:
    inputs = table(2, 50_000)
    made = Munge(p=0.3)(inputs, seed=2)
    # Either of the two turns of a pair changes it.
    assert (made[0] != inputs[0]).mean() == pytest.approx(1 - 0.7**2, abs=0.01)
    np.testing.assert_array_equal(Munge(p=0.0)(inputs, seed=2), inputs)


def test_copies_differ_and_the_seed_decides() -> None:
    inputs = table(20, 4)
    made = Munge(copies=3)(inputs, seed=5)
    assert made.shape == (60, 4)
    assert made.dtype == np.float32
    assert not np.array_equal(made[:20], made[20:40])
    np.testing.assert_array_equal(made, Munge(copies=3)(inputs, seed=5))
    assert not np.array_equal(made, Munge(copies=3)(inputs, seed=6))


def test_equal_samples_are_each_others_neighbours() -> None:
    inputs = np.ones((4, 3), np.float32)
    np.testing.assert_array_equal(Munge(p=1.0)(inputs, seed=0), inputs)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"copies": 0}, "copies must be >= 1, got 0"),
        ({"p": 1.5}, r"p must be in \[0, 1\], got 1.5"),
        ({"s": 0.0}, "s must be a finite number > 0"),
    ],
)
def test_arguments_out_of_range(arguments: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Munge(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("inputs", "munge", "words"),
    [
        (np.zeros((4, 1, 8, 8), np.float32), Munge(), "expected a table"),
        (np.zeros((4, 8), np.uint8), Munge(), "expected a table"),
        (np.zeros((1, 8), np.float32), Munge(), "at least two"),
        (np.zeros((4, 8), np.float32), Munge(discrete=[8]), "discrete: expected columns in"),
    ],
)
def test_what_cannot_be_munged_is_one_line(inputs: Array, munge: Munge, words: str) -> None:
    with pytest.raises(UserError, match=words):
        munge(inputs, 0)


@pytest.mark.parametrize("labelled", [None, 12])
def test_made_samples_join_training_without_labels(
    held: Callable[..., object], labelled: int | None
) -> None:
    source = held([20, 20], shape=(3,))
    plain = InMemory(source, 8, labelled, drop_last=False)  # type: ignore[arg-type]
    data = InMemory(source, 8, labelled, synthesise=Munge(2), drop_last=False)  # type: ignore[arg-type]
    real = plain.sizes()["train"]
    batches = list(data.train_dataloader())
    index = torch.cat([batch.index for batch in batches])
    assert len(index) == len(set(index.tolist())) == 3 * real
    made = index >= 40
    assert int(made.sum()) == 2 * real
    mask = torch.cat([batch.mask for batch in batches if batch.mask is not None])
    target = torch.cat([batch.target for batch in batches])
    assert not mask[made].any()
    assert (target[made] == UNLABELLED).all()
    assert int(mask.sum()) == (labelled or real)
    # Only the training split is imitated: no made value leaves the range of its real pairs by far.
    held_out = torch.cat([batch.index for batch in data.val_dataloader()])
    assert not set(held_out.tolist()) & set(index.tolist())
    assert data.digest != plain.digest


def test_labels_alone_leave_made_samples_out(held: Callable[..., object]) -> None:
    source = held([20, 20], shape=(3,))
    data = InMemory(source, 8, synthesise=Munge(2), drop_last=False)  # type: ignore[arg-type]
    whole = len(data.train_dataloader())
    data.labelled_only = True
    batches = list(data.train_dataloader())
    assert len(batches) == whole
    assert all(batch.mask is None or batch.mask.all() for batch in batches)
    assert max(int(batch.index.max()) for batch in batches) < 40
