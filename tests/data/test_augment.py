from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ensemble_kd.data import Augmentation, Chain, Crop, Flip, Noise, ResizedCrop, Shift
from ensemble_kd.errors import UserError

ALL = [
    Noise(0.3),
    Shift(2),
    Crop(2),
    ResizedCrop(0.3),
    Flip(),
    Chain([Flip(), Shift(1), Noise(0.1)]),
]
SIZES = st.tuples(st.integers(1, 3), st.integers(3, 9), st.integers(3, 9))


def images(count: int, shape: tuple[int, ...] = (2, 6, 5)) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("augment", ALL, ids=repr)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_a_sample_does_not_know_its_batch(augment: Augmentation, data: st.DataObject) -> None:
    """Bit by bit the same in any batch, at any place, beside any others, at any epoch."""
    shape = data.draw(SIZES)
    inputs = images(20, shape)
    index = torch.arange(20) * 7
    epochs = torch.tensor(data.draw(st.lists(st.integers(0, 3), min_size=20, max_size=20)))
    whole = augment(inputs, index, epochs, 11)
    rows = torch.tensor(data.draw(st.lists(st.integers(0, 19), min_size=1, max_size=9)))
    part = augment(inputs[rows], index[rows], epochs[rows], 11)
    assert torch.equal(part, whole[rows])
    row = int(rows[0])
    alone = augment(inputs[row : row + 1], index[row : row + 1], int(epochs[row]), 11)
    assert torch.equal(alone[0], whole[row])


@pytest.mark.parametrize("augment", ALL, ids=repr)
def test_pure(augment: Augmentation) -> None:
    inputs, index = images(30), torch.arange(30)
    before = inputs.clone()
    state = torch.get_rng_state()
    once = augment(inputs, index, 3, 11)
    torch.manual_seed(123)
    assert torch.equal(augment(inputs, index, 3, 11), once)
    assert torch.equal(inputs, before)
    assert once.shape == inputs.shape
    assert once.dtype == inputs.dtype
    torch.set_rng_state(state)
    augment(inputs, index, 3, 11)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("augment", ALL, ids=repr)
def test_epoch_seed_and_index_matter(augment: Augmentation) -> None:
    inputs, index = images(1).expand(40, -1, -1, -1), torch.arange(40)
    once = augment(inputs, index, 3, 11)
    for other in (
        augment(inputs, index, 4, 11),
        augment(inputs, index, 3, 12),
        augment(inputs, index + 40, 3, 11),
    ):
        assert not torch.equal(once, other)
    assert len({tuple(sample.flatten().tolist()) for sample in once}) > 1


def test_noise_has_its_standard_deviation() -> None:
    inputs = images(500)
    noise = Noise(0.3)(inputs, torch.arange(500), 0, 0) - inputs
    assert float(noise.mean()) == pytest.approx(0, abs=0.01)
    assert float(noise.std()) == pytest.approx(0.3, rel=0.02)
    assert torch.equal(Noise(0.0)(inputs, torch.arange(500), 0, 0), inputs)


def reference_shifts(image: Tensor, pixels: int) -> list[Tensor]:
    """All ways to move an image by whole pixels over zeros, row-major by (down, right) offset."""
    height, width = image.shape[1:]
    moved = []
    for down in range(-pixels, pixels + 1):
        for right in range(-pixels, pixels + 1):
            out = torch.zeros_like(image)
            for y in range(height):
                for x in range(width):
                    if 0 <= y + down < height and 0 <= x + right < width:
                        out[:, y, x] = image[:, y + down, x + right]
            moved.append(out)
    return moved


def test_shift_moves_by_each_distance_equally_often() -> None:
    image = images(1, (2, 4, 5))
    moved = Shift(1)(image.expand(1800, -1, -1, -1), torch.arange(1800), 0, 0)
    ways = reference_shifts(image[0], 1)
    counts = [int((moved == way).flatten(1).all(dim=1).sum()) for way in ways]
    assert sum(counts) == 1800
    assert min(counts) > 150
    assert torch.equal(Shift(0)(image, torch.arange(1), 0, 0), image)


def test_crop_continues_by_reflection() -> None:
    image = images(1, (1, 3, 3))
    cropped = Crop(1)(image.expand(200, -1, -1, -1), torch.arange(200), 0, 0)
    rows = torch.tensor([1, 0, 1, 2, 1])
    padded = image[0, 0][rows][:, rows]
    ways = [padded[y : y + 3, x : x + 3] for y in range(3) for x in range(3)]
    counts = [int((cropped[:, 0] == way).flatten(1).all(dim=1).sum()) for way in ways]
    assert sum(counts) == 200
    assert min(counts) > 5


def ramps(count: int, height: int, width: int) -> Tensor:
    """Channel 0 holds the row and channel 1 the column: resampled, they tell where a pixel was."""
    rows = torch.arange(height).float()[:, None].expand(height, width)
    columns = torch.arange(width).float().expand(height, width)
    return torch.stack([rows, columns]).expand(count, -1, -1, -1)


def test_resized_crop_enlarges_a_window_of_the_image() -> None:
    height, width, count = 12, 20, 400
    seen = ResizedCrop(0.25, 1.5)(ramps(count, height, width), torch.arange(count), 0, 0).double()
    shares = []
    for axis, size in ((0, height), (1, width)):
        along = seen[:, axis].mean(dim=2 - axis)
        assert torch.allclose(seen[:, axis], along.unsqueeze(2 - axis), atol=1e-4)  # no shear
        steps = along.diff(dim=1)
        # The first and the last pixels may lie beyond the centres of the image's: the edge goes on.
        share = steps[:, 2:-2].mean(dim=1)
        assert torch.allclose(steps[:, 2:-2], share[:, None], atol=1e-4)
        begin = along[:, size // 2] - share * (size // 2 + 0.5) + 0.5
        assert float(begin.min()) > -1e-3
        assert float((begin + share * size).max()) < size + 1e-3
        assert float(begin.min()) < 0.05 * size  # windows reach both edges
        assert float((begin + share * size).max()) > 0.95 * size
        shares.append(share)
    area, stretch = shares[0] * shares[1], shares[1] / shares[0]
    assert 0.25 - 1e-3 < float(area.min()) < 0.3
    assert 0.9 < float(area.max()) < 1 + 1e-3
    assert float(area.mean()) == pytest.approx(0.61, abs=0.04)  # 0.625, less what is cut off
    assert 1 / 1.5 - 1e-3 < float(stretch.min()) < 0.7
    assert 1.43 < float(stretch.max()) < 1.5 + 1e-3
    assert int((stretch > 1).sum()) == pytest.approx(count / 2, abs=40)


def test_resized_crop_of_everything_changes_nothing() -> None:
    inputs = images(9)
    whole = ResizedCrop(1.0, 1.0)(inputs, torch.arange(9), 0, 0)
    torch.testing.assert_close(whole, inputs, atol=1e-6, rtol=0)


def test_flip_mirrors_half_of_them() -> None:
    inputs = images(1000)
    flipped = Flip()(inputs, torch.arange(1000), 0, 0)
    same = (flipped == inputs).flatten(1).all(dim=1)
    mirrored = (flipped == inputs.flip(-1)).flatten(1).all(dim=1)
    assert bool((same ^ mirrored).all())
    assert 440 < int(mirrored.sum()) < 560


def test_chain_gives_each_step_its_own_numbers() -> None:
    inputs, index = torch.zeros(50, 1, 4, 4), torch.arange(50)
    twice = Chain([Noise(1.0), Noise(1.0)])(inputs, index, 0, 0)
    # The same numbers twice would have standard deviation 2.
    assert float(twice.std()) == pytest.approx(2**0.5, rel=0.1)
    assert torch.equal(Chain([])(inputs, index, 0, 0), inputs)


def test_repr_says_all_settings() -> None:
    assert repr(Chain([Noise(0.1), Shift(2), Crop(4), Flip()])) == (
        "Chain(steps=(Noise(std=0.1), Shift(pixels=2), Crop(padding=4), Flip()))"
    )


@pytest.mark.parametrize("std", [-0.1, float("nan"), float("inf")])
def test_noise_refuses(std: float) -> None:
    with pytest.raises(ValueError, match="std must be a finite number >= 0, got"):
        Noise(std)


def test_negative_distances_are_refused() -> None:
    with pytest.raises(ValueError, match="pixels must be >= 0, got -1"):
        Shift(-1)
    with pytest.raises(ValueError, match="padding must be >= 0, got -1"):
        Crop(-1)


@pytest.mark.parametrize(("smallest", "aspect"), [(0.0, 1.0), (1.1, 1.0), (0.5, 0.9)])
def test_windows_that_cannot_be(smallest: float, aspect: float) -> None:
    with pytest.raises(ValueError, match=r"must be .* got (0\.0|1\.1|0\.9)"):
        ResizedCrop(smallest, aspect)


@pytest.mark.parametrize("augment", [Shift(1), Crop(1), ResizedCrop(0.5), Flip()], ids=repr)
def test_images_only(augment: Augmentation) -> None:
    with pytest.raises(UserError, match=r"needs images .* got samples of shape \(7,\)"):
        augment(torch.zeros(3, 7), torch.arange(3), 0, 0)


def test_crop_refuses_more_padding_than_image() -> None:
    with pytest.raises(UserError, match="must be smaller than the image, got 4"):
        Crop(4)(torch.zeros(3, 1, 4, 8), torch.arange(3), 0, 0)
