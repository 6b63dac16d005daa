"""What an image teacher makes of its images, against Pillow and plain loops."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from ensemble_kd.networks.prepared import Prepared, inside
from ensemble_kd.networks.taps import listen
from ensemble_kd.teachers.sources import Preprocess, Told
from ensemble_kd.teachers.sources.preprocess import prepared, preparing

RAW = Told((3, 9, 12), ("a", "b"))
MODES = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


def images(shape: tuple[int, ...] = (2, 3, 9, 12), seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def made(preprocess: Preprocess, raw: Tensor, told: Told | None = None) -> Tensor:
    told = told or Told(tuple(raw.shape[1:]), ("a", "b"))
    with torch.no_grad():
        said: Tensor = preparing(preprocess, told)(raw)
    return said


def reference_resize(raw: Tensor, height: int, width: int, mode: Any) -> Tensor:
    """Pillow, in floating point, channel by channel."""
    planes = raw.flatten(0, 1).numpy()
    resized = [np.array(Image.fromarray(plane).resize((width, height), mode)) for plane in planes]
    return torch.from_numpy(np.stack(resized)).view(*raw.shape[:2], height, width).clamp(0, 1)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sides", [(5, 7), (18, 24), (9, 5), (20, 6)])
def test_resizes_as_pillow_does(mode: Any, sides: tuple[int, int]) -> None:
    raw = images()
    expected = reference_resize(raw, *sides, MODES[mode])
    said = made(Preprocess(size=sides, interpolation=mode), raw)
    torch.testing.assert_close(said, expected, rtol=1e-4, atol=1e-5)


def test_bicubic_overshoot_is_cut() -> None:
    raw = torch.zeros(1, 1, 8, 8)
    raw[..., 4:] = 1
    over = nn.functional.interpolate(raw, (16, 16), mode="bicubic", antialias=True)
    assert over.min() < 0 < 1 < over.max()
    said = made(Preprocess(size=(16, 16), interpolation="bicubic"), raw)
    assert (float(said.min()), float(said.max())) == (0, 1)


@pytest.mark.parametrize(
    ("shape", "size", "sides"),
    [((9, 12), 6, (6, 8)), ((12, 9), 6, (8, 6)), ((9, 12), 5, (5, 6)), ((8, 8), 11, (11, 11))],
)
def test_a_single_size_is_that_of_the_shorter_side(
    shape: tuple[int, int], size: int, sides: tuple[int, int]
) -> None:
    raw = images((1, 3, *shape))
    assert made(Preprocess(size=size), raw).shape[-2:] == sides


def in_front(margin: int, middle: str) -> int:
    """Where torchvision (``even``) and transformers (``first``) begin, as they write it."""
    if middle == "first":
        return margin // 2
    return round(margin / 2.0) if margin > 0 else -(-margin // 2)


@pytest.mark.parametrize("middle", ["even", "first"])
@pytest.mark.parametrize(
    ("height", "width"), [(4, 4), (9, 5), (6, 9), (3, 12), (12, 14), (10, 4), (1, 1), (2, 15)]
)
def test_crops_the_middle_and_fills_up_with_black(height: int, width: int, middle: Any) -> None:
    raw = images()
    expected = torch.zeros(2, 3, height, width)
    top, left = in_front(9 - height, middle), in_front(12 - width, middle)
    for y in range(height):
        for x in range(width):
            if 0 <= top + y < 9 and 0 <= left + x < 12:
                expected[..., y, x] = raw[..., top + y, left + x]
    said = made(Preprocess(crop=(height, width), middle=middle), raw)
    assert torch.equal(said, expected)


def test_grey_and_colours() -> None:
    raw = images()
    grey = made(Preprocess(channels=1), raw)
    red, green, blue = raw.unbind(1)
    torch.testing.assert_close(grey[:, 0], 0.299 * red + 0.587 * green + 0.114 * blue)
    again = made(Preprocess(channels=3), grey)
    assert torch.equal(again, grey.expand(-1, 3, -1, -1))


def test_scales_and_normalises_last() -> None:
    raw = images()
    mean, std = (1.0, 2.0, 3.0), (2.0, 4.0, 0.5)
    said = made(Preprocess(crop=(12, 12), scale=255, mean=mean, std=std), raw)
    for channel in range(3):
        own = (255 * raw[:, channel] - mean[channel]) / std[channel]
        torch.testing.assert_close(said[:, channel, 1:10], own)
        # What lies beyond the image is black before it is normalised.
        assert (said[:, channel, 0] == -mean[channel] / std[channel]).all()


@pytest.mark.parametrize("mean", [0.5, (0.1, 0.2, 0.3), None])
@pytest.mark.parametrize("std", [2.0, (0.5, 1.0, 4.0), None])
def test_undoes_the_standardisation_of_the_data(mean: Any, std: Any) -> None:
    raw = images()
    subtracted = torch.tensor(0.0 if mean is None else mean).view(-1, 1, 1)
    divided = torch.tensor(1.0 if std is None else std).view(-1, 1, 1)
    told = dataclasses.replace(RAW, mean=mean, std=std)
    said = made(Preprocess(), (raw - subtracted) / divided, told)
    torch.testing.assert_close(said, raw, rtol=1e-5, atol=1e-6)


def test_taps_are_named_as_in_the_teacher_itself() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 4 * 4, 2))
    teacher = prepared(network, Preprocess(size=(6, 6), scale=2.0), RAW)
    assert isinstance(teacher, Prepared)
    assert inside(teacher) is network
    raw = images()
    said = listen(teacher, raw, ["0", "2.input", "0.pooled"])
    seen = 2 * reference_resize(raw, 6, 6, MODES["bilinear"])
    torch.testing.assert_close(said.features["0"], network[0](seen), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(said.logits, network(seen), rtol=1e-4, atol=1e-5)
    assert said.features["2.input"].shape == (2, 64)
    assert said.features["0.pooled"].shape == (2, 4)


def test_without_preprocessing_a_network_is_itself() -> None:
    network = nn.Linear(2, 2)
    assert prepared(network, None, RAW) is network


def test_inputs_are_left_alone() -> None:
    raw = images()
    before = raw.clone()
    made(Preprocess(size=4, mean=0.5), raw)
    assert torch.equal(raw, before)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"size": 0}, "size"),
        ({"size": []}, "size"),
        ({"crop": (3, -1)}, "crop"),
        ({"crop": (1, 2, 3)}, "crop"),
        ({"std": (1, 0)}, "std"),
        ({"scale": 0}, "scale"),
    ],
)
def test_arguments_out_of_range(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said} must be"):
        Preprocess(**arguments)


def test_data_that_do_not_fit(refusal: Callable[[Callable[[], object]], str]) -> None:
    def line(preprocess: Preprocess, **told: Any) -> str:
        return refusal(lambda: preparing(preprocess, dataclasses.replace(RAW, **told)))

    assert "expected images" in line(Preprocess(), inputs=(6,))
    assert "expected images" in line(Preprocess(), tokenizer=object())
    assert "preprocess.channels: expected 1 or 3" in line(Preprocess(channels=3), inputs=(2, 4, 4))
    assert "preprocess.mean: expected one value or 3, got 2" in line(Preprocess(mean=(0, 1)))
    assert "preprocess.std: expected one value or 1, got 3" in line(
        Preprocess(channels=1, std=(1, 1, 1))
    )
