from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ensemble_kd.networks.aligned import Aligned


def maps(*shapes: tuple[int, int, int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, *shape, generator=generator, dtype=torch.float64) for shape in shapes]


def test_maps_of_one_shape_stay_as_they_are() -> None:
    given = maps((3, 4, 4), (3, 4, 4))
    aligned = Aligned([3, 3])
    assert not list(aligned.parameters())
    for before, after in zip(given, aligned(given), strict=True):
        assert torch.equal(before, after)


def test_unlike_maps_are_averaged_and_projected() -> None:
    given = maps((3, 4, 6), (5, 2, 2))
    aligned = Aligned([3, 5]).double()
    first, second = aligned(given)
    assert first.shape == second.shape == (2, 3, 2, 2)
    for sample in range(2):
        for d in range(3):
            for h in range(2):
                for w in range(2):
                    block = given[0][sample, d, 2 * h : 2 * h + 2, 3 * w : 3 * w + 3]
                    expected = sum(block.flatten().tolist()) / 6
                    assert first[sample, d, h, w].item() == pytest.approx(expected)
    projection = aligned.regressors[1]
    assert isinstance(projection, nn.Conv2d)
    assert projection.bias is not None
    weight = projection.weight[:, :, 0, 0]
    for sample in range(2):
        for h in range(2):
            for w in range(2):
                place = weight @ given[1][sample, :, h, w] + projection.bias
                torch.testing.assert_close(second[sample, :, h, w], place)


def test_one_map_is_enough() -> None:
    (given,) = maps((3, 4, 4))
    assert torch.equal(Aligned([3])([given])[0], given)


@pytest.mark.parametrize("channels", [[], [3, 0]])
def test_what_are_no_channels_is_refused(channels: list[int]) -> None:
    with pytest.raises(ValueError, match="channels must be one or more numbers >= 1, got"):
        Aligned(channels)
