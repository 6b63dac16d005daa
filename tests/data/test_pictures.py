from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from ensemble_kd.data.pictures import Pictures, endings, formats
from ensemble_kd.errors import UserError

Pixels = npt.NDArray[np.uint8]


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> Pixels:
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path: Path, pixels: Pixels, mode: str | None = None) -> Path:
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(path)
    return path


def decoded(path: Path, channels: int | None = None, size: tuple[int, int] | None = None) -> Pixels:
    pictures = Pictures(path.parent, [path.name], channels, size)
    pixels = pictures.index_select(0, torch.tensor([0]))
    assert pixels.dtype == torch.uint8
    assert pixels.shape == (1, *pictures.shape[1:])
    array: Pixels = pixels[0].numpy()
    return array


@pytest.mark.parametrize("ending", ["png", "bmp", "ppm", "tif", "webp", "gif"])
def test_lossless_formats_give_the_very_pixels(tmp_path: Path, ending: str) -> None:
    pixels = noise(5, 7, 1 if ending == "gif" else 3)
    path = tmp_path / f"a.{ending}"
    Image.fromarray(pixels).save(path, lossless=True)  # of the formats, WebP has to be told
    expected = pixels[None] if ending == "gif" else pixels.transpose(2, 0, 1)
    assert np.array_equal(decoded(path, channels=len(expected)), expected)


def test_jpeg_is_what_pillow_says(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", noise(8, 12))
    with Image.open(path) as image:
        expected = np.asarray(image).transpose(2, 0, 1)
    assert np.array_equal(decoded(path), expected)


def test_rows_in_any_order_and_again(tmp_path: Path) -> None:
    pixels = [noise(4, 4, seed=seed) for seed in range(3)]
    for number, each in enumerate(pixels):
        save(tmp_path / f"{number}.png", each)
    pictures = Pictures(tmp_path, ["0.png", "1.png", "2.png"])
    expected = torch.from_numpy(np.stack(pixels).transpose(0, 3, 1, 2))
    for _ in range(2):
        rows = torch.tensor([2, 0, 2])
        assert torch.equal(pictures.index_select(0, rows), expected[rows])
        assert len(pictures.index_select(0, rows[:0])) == 0
        pictures.keep()
        assert pictures.kept
    with pytest.raises(ValueError, match="dim must be 0, got 1"):
        pictures.index_select(1, torch.tensor([0]))


def test_colour_becomes_grey_by_luma_and_grey_becomes_colour_by_repeating(tmp_path: Path) -> None:
    colour, grey = noise(5, 6), noise(5, 6, 1)
    said = decoded(save(tmp_path / "a.png", colour), channels=1)
    luma = colour.astype(np.float64) @ [0.299, 0.587, 0.114]
    assert said.shape == (1, 5, 6)
    assert np.abs(said[0] - luma).max() <= 1
    said = decoded(save(tmp_path / "b.png", grey), channels=3)
    assert np.array_equal(said, np.stack([grey] * 3))


def test_the_first_image_decides_the_channels(tmp_path: Path) -> None:
    save(tmp_path / "a.png", noise(4, 4, 1))
    save(tmp_path / "b.png", noise(4, 4))
    assert Pictures(tmp_path, ["a.png", "b.png"]).shape == (2, 1, 4, 4)
    assert Pictures(tmp_path, ["b.png", "a.png"]).shape == (2, 3, 4, 4)


def test_transparency_is_dropped_and_palettes_are_looked_up(tmp_path: Path) -> None:
    pixels = noise(4, 4, 4)
    said = decoded(save(tmp_path / "a.png", pixels))
    assert np.array_equal(said, pixels[..., :3].transpose(2, 0, 1))
    few = np.array([[0, 1], [2, 1]], np.uint8)
    colours = [(255, 0, 0), (1, 2, 3), (0, 0, 9)]
    image = Image.new("P", (2, 2))
    image.putdata(few.flatten().tolist())
    image.putpalette([value for colour in colours for value in colour])
    # Transparency as bytes, of which Pillow warns in a conversion to RGB.
    image.save(tmp_path / "b.png", transparency=bytes([0, 128, 255]))
    expected = np.array(colours, np.uint8)[few].transpose(2, 0, 1)
    assert np.array_equal(decoded(tmp_path / "b.png"), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
def test_exif_turns_images(tmp_path: Path, orientation: int, ending: str) -> None:
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:4, :8] = 255  # white in the upper left
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"a.{ending}"
    Image.fromarray(pixels).save(path, exif=exif)
    said = decoded(path)  # the header and the pixels agree in the size, or this fails
    # Source: the table of orientations of EXIF 2.3, 4.6.4: where row 0 and column 0 are.
    expected = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: pixels.transpose(1, 0, 2)[:, ::-1],
        7: pixels.transpose(1, 0, 2)[::-1, ::-1],
        8: pixels.transpose(1, 0, 2)[::-1],
    }[orientation].transpose(2, 0, 1)
    assert said.shape == expected.shape
    assert np.abs(said.astype(int) - expected).max() <= 8  # JPEG is not exact


@pytest.mark.parametrize(
    ("found", "size"), [((40, 60), (10, 10)), ((60, 40), (10, 20)), ((6, 8), (12, 12))]
)
def test_scaled_to_fit_and_cropped_in_the_middle(
    tmp_path: Path, found: tuple[int, int], size: tuple[int, int]
) -> None:
    # A ramp: scaling keeps it one, so that the middle of each pixel is known.
    rows, columns = np.mgrid[: found[0], : found[1]]
    pixels = np.stack([3 * rows, 3 * columns, 0 * rows], axis=-1).astype(np.uint8)
    said = decoded(save(tmp_path / "a.png", pixels), size=size).astype(np.float64)
    factor = min(found[0] / size[0], found[1] / size[1])
    for axis in (0, 1):
        centres = found[axis] / 2 + (np.arange(size[axis]) - (size[axis] - 1) / 2) * factor - 0.5
        expected = 3 * centres.clip(0, found[axis] - 1)
        along = said[axis].mean(axis=1 - axis)
        assert np.abs(along[1:-1] - expected[1:-1]).max() <= 1
    assert said.shape == (3, *size)


def test_scaling_down_is_antialiased(tmp_path: Path) -> None:
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    said = decoded(save(tmp_path / "a.png", board), size=(8, 8))
    assert np.abs(said[0, 1:-1, 1:-1].astype(int) - 127).max() <= 2


def test_a_photograph_is_decoded_at_less_than_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smooth = Image.fromarray(noise(8, 8)).resize((512, 512), Image.Resampling.BICUBIC)
    smooth.save(tmp_path / "a.jpg", quality=95)
    loaded = []
    convert = Image.Image.convert

    def noted(image: Image.Image, mode: str) -> Image.Image:
        loaded.append(image.size)
        return convert(image, mode)

    monkeypatch.setattr(Image.Image, "convert", noted)
    said = decoded(tmp_path / "a.jpg", size=(32, 32))
    assert loaded == [(64, 64)]
    expected = np.asarray(smooth.resize((32, 32), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert np.abs(said.astype(int) - expected).mean() < 3


def test_sizes_that_differ_are_named(tmp_path: Path) -> None:
    for name, height in (("a.png", 4), ("b.png", 4), ("c.png", 5), ("d.png", 6)):
        save(tmp_path / name, noise(height, 7))
    with pytest.raises(UserError) as refusal:
        Pictures(tmp_path, ["a.png", "b.png", "c.png", "d.png"])
    assert str(refusal.value) == (
        f"{tmp_path}: images must have one size, or set data.size=[height,width] to scale them; "
        "a.png is 4x7, c.png is 5x7 (height x width)"
    )
    assert Pictures(tmp_path, ["a.png", "c.png"], size=(3, 3)).shape == (2, 3, 3, 3)


def refused(path: Path, size: tuple[int, int] | None = None) -> str:
    with pytest.raises(UserError) as refusal:
        decoded(path, size=size)
    message = str(refusal.value)
    assert str(path) in message
    assert "\n" not in message
    assert message.count(str(path)) == 1
    return message


def test_damaged_headers_are_found_at_opening(tmp_path: Path) -> None:
    save(tmp_path / "a.png", noise(4, 4))
    for name, content in (("b.png", b""), ("c.jpg", b"<html>not an image</html>")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=r"cannot be read as an image \(.*\); repair, replace"):
            Pictures(tmp_path, ["a.png", name])


@pytest.mark.parametrize("ending", ["png", "jpg", "bmp", "webp"])
def test_truncated(tmp_path: Path, ending: str) -> None:
    path = save(tmp_path / f"a.{ending}", noise(64, 64))
    path.write_bytes(path.read_bytes()[:-2000])
    assert "repair, replace or remove it" in refused(path)


def test_missing(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to(tmp_path / "nowhere.png")
    assert "No such file" in refused(tmp_path / "a.png")


def test_a_file_that_changed_after_it_was_opened(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", noise(4, 4))
    pictures = Pictures(tmp_path, ["a.png"])
    save(path, noise(4, 5))
    with pytest.raises(UserError, match=r"must have one size, 4x4, got 4x5"):
        pictures.index_select(0, torch.tensor([0]))
    path.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        pictures.index_select(0, torch.tensor([0]))


def test_more_than_eight_bits_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(path)
    assert "must have 8 bits a channel, got Pillow's mode I;16" in refused(path)


def test_postscript_is_never_run(tmp_path: Path) -> None:
    assert "EPS" not in formats()
    assert not {".eps", ".ps"} & endings()
    assert {".png", ".jpg", ".jpeg", ".webp", ".bmp"} <= endings()
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EOF\n")
    assert "cannot be read as an image" in refused(tmp_path / "a.png")


def test_digest(tmp_path: Path) -> None:
    def digest(folder: str = "one", names: tuple[str, ...] = ("a.png", "b.png")) -> str:
        (tmp_path / folder).mkdir(exist_ok=True)
        for seed, name in enumerate(names):
            save(tmp_path / folder / name, noise(4, 4, seed=seed))
        return Pictures(tmp_path / folder, names).digest

    first = digest()
    assert digest("two") == first
    kept = Pictures(tmp_path / "one", ["a.png", "b.png"])
    kept.keep()
    assert kept.digest == first
    others = [
        digest("three", ("a.png", "c.png")),
        digest("four", ("b.png", "a.png")),
        Pictures(tmp_path / "one", ["a.png", "b.png"], channels=1).digest,
        Pictures(tmp_path / "one", ["a.png", "b.png"], size=(4, 4)).digest,
    ]
    save(tmp_path / "one" / "b.png", noise(4, 4, seed=5))
    others.append(Pictures(tmp_path / "one", ["a.png", "b.png"]).digest)
    assert len({first, *others}) == 6
