from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ensemble_kd.data import Folders
from ensemble_kd.errors import UserError


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """An empty folder."""
    root = tmp_path / "images"
    root.mkdir()
    return root


def write(root: Path, files: Mapping[str, int] | list[str], size: tuple[int, int] = (4, 4)) -> None:
    """Grey images; each is filled with its number, or that of its position."""
    numbers = files if isinstance(files, Mapping) else {name: k for k, name in enumerate(files)}
    for name, number in numbers.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", size[::-1], number).save(root / name)


def numbers(samples: Any) -> list[int]:
    pixels = samples.inputs.index_select(0, torch.arange(len(samples.labels)))
    found: list[int] = pixels.amax(dim=(1, 2, 3)).tolist()
    return found


def test_classes_are_folders_and_samples_are_sorted_paths(images: Path) -> None:
    # Hidden, of another kind, in folders of folders, and in an order that is not that of creation.
    files = {"b/z.png": 3, "a/deep/er/x.png": 1, "b/A.PNG": 2, "a/y.bmp": 4, "a b/c.png": 5}
    write(images, files)
    write(images, ["a/.hidden.png", ".git/a.png", "a/.cache/b.png"])
    (images / "a" / "notes.txt").write_text("hello")
    (images / "README.md").write_text("hello")
    train, test, classes, names, val, *_ = Folders(images).load()
    assert (test, val) == (None, None)
    assert names == ("a", "a b", "b")
    assert classes == 3
    assert train.inputs.names == tuple(sorted(files))
    assert numbers(train) == [files[name] for name in sorted(files)]
    assert train.labels.tolist() == [names.index(name.partition("/")[0]) for name in sorted(files)]


def test_parts(images: Path) -> None:
    write(images, ["train/a/1.png", "train/b/2.png", "val/b/3.png", "test/a/4.png"])
    (images / "val" / "a").mkdir()
    source = Folders(images)
    train, test, classes, names, val, *_ = source.load()
    assert test is not None
    assert val is not None
    assert (classes, names) == (2, ("a", "b"))
    assert [numbers(part) for part in (train, val, test)] == [[0, 1], [2], [3]]
    assert [part.labels.tolist() for part in (train, val, test)] == [[0, 1], [1], [0]]
    assert train.inputs.names == ("a/1.png", "b/2.png")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "expected a folder for each of at least 2 classes, got none; expected PATH/train/"),
        (["a/1.png"], "expected a folder for each of at least 2 classes, got a;"),
        (["train/a/1.png"], "train: expected a folder for each of at least 2 classes, got a;"),
        (["a/1.png", "b/1.txt"], "b: expected images, got none;"),
        (["train/a/1.png", "train/b/1.png", "val/a/1.txt"], "val: expected images, got none;"),
        (["train/a/1.png", "train/b/1.png", "valid/a/1.png"], "got valid/ beside train/"),
        (["val/a/1.png", "test/b/1.png"], "got val/ without train/"),
        (["train/a/1.png", "train/b/1.png", "test/c/1.png"], "c is no class of train/"),
        (["a/1.png", "b/1.png", "1.png"], "1.png: expected images in a folder of their class"),
    ],
)
def test_layouts_that_are_none(images: Path, files: list[str], message: str) -> None:
    for file in files:
        (images / file).parent.mkdir(parents=True, exist_ok=True)
        if file.endswith(".png"):
            write(images, [file])
        else:
            (images / file).write_text("hello")
    with pytest.raises(UserError) as refusal:
        Folders(images).load()
    assert message in str(refusal.value)
    assert str(images) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_no_folder(images: Path) -> None:
    for path in (images / "nowhere", images / "file"):
        (images / "file").write_text("hello")
        with pytest.raises(UserError, match=rf"no folder {path}; set data.path: expected PATH"):
            Folders(path).load()


def test_parts_of_other_sizes(images: Path) -> None:
    write(images, ["train/a/1.png", "train/b/1.png"])
    write(images, ["val/a/1.png"], (4, 5))
    with pytest.raises(UserError, match=r"those of train/ are 4x4, those of val/ are 4x5"):
        Folders(images).load()
    train, _, _, _, val, *_ = Folders(images, size=[3, 2]).load()
    assert val is not None
    assert train.inputs.shape == (2, 1, 3, 2)
    assert val.inputs.shape == (1, 1, 3, 2)


def test_all_parts_have_the_channels_of_the_first_training_image(images: Path) -> None:
    write(images, ["train/a/1.png", "train/b/1.png"])
    (images / "test" / "a").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(images / "test" / "a" / "1.png")
    source = Folders(images)
    _, test, *_ = source.load()
    assert test is not None
    assert test.inputs.shape == (1, 1, 4, 4)
    assert (source.mean, source.std) == ((0.5,), (0.5,))
    colour = Folders(images, channels=3)
    assert colour.mean == (0.485, 0.456, 0.406)
    assert colour.std == (0.229, 0.224, 0.225)
    given = Folders(images, mean=0.1, std=[0.2])
    assert (given.mean, given.std) == (0.1, [0.2])


@pytest.mark.parametrize(
    ("keep", "limit", "kept"),
    [("auto", 48, True), ("auto", 47, False), ("off", 1e9, False), ("memory", 1, True)],
)
def test_kept_where_that_is_small(images: Path, keep: Any, limit: float, kept: bool) -> None:
    write(images, ["train/a/1.png", "train/b/1.png", "test/a/1.png"])
    source = Folders(images, keep=keep, limit=limit)
    assert source.kept is kept
    train, test, *_ = source.load()
    assert numbers(train) + numbers(test) == [0, 1, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": [3]}, r"size must be \[height, width\] in pixels, got \[3\]"),
        ({"size": [3, 0]}, r"got \[3, 0\]"),
        ({"channels": 2}, "channels must be 1, 3 or null .* got 2"),
        ({"keep": "disk"}, "keep must be one of off, auto, memory, got 'disk'"),
        ({"limit": 0}, "limit must be a number of bytes > 0, got 0"),
    ],
)
def test_arguments_out_of_range(images: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Folders(images, **arguments)


def test_standardisation_that_does_not_fit(images: Path) -> None:
    from ensemble_kd.data import InMemory

    write(images, [f"{c}/{k}.png" for c in "ab" for k in range(4)])
    with pytest.raises(UserError, match="mean must be one finite number or one for each of 1 chan"):
        InMemory(Folders(images, mean=[0.1, 0.2])).setup()
    assert np.asarray(InMemory(Folders(images)).inputs).tolist() == [1, 4, 4]
