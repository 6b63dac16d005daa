"""Folders of images that cannot be used."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ensemble_kd.data import ImageFolder
from ensemble_kd.errors import UserError


def test_a_damaged_file_is_one_line_wherever_it_is_decoded(images: Path) -> None:
    damaged = images / "cat" / "007.png"
    damaged.write_bytes(damaged.read_bytes()[:-60])
    line = f"{damaged} cannot be read as an image"
    for workers in (0, 1):
        data = ImageFolder(images, workers=workers, keep="off", batch_size=4)
        assert data.sizes()["train"] == 84  # the header is whole
        loaders = (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())
        with pytest.raises(UserError) as refusal:
            list(itertools.chain(*loaders))
        assert str(refusal.value).startswith(line)
        assert "\n" not in str(refusal.value)
    with pytest.raises(UserError, match=line):
        ImageFolder(images).setup()


def test_too_few_of_a_class(tmp_path: Path, write_images: Callable[..., Any]) -> None:
    write_images(tmp_path / "images", {"a": 9, "b": 2})
    with pytest.raises(UserError, match=r"class 1 has 2 samples, at least 3 are needed"):
        ImageFolder(tmp_path / "images").setup()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"workers": -1}, "workers must be auto or a number >= 0, got -1"),
        ({"workers": "many"}, "workers must be auto or a number >= 0, got 'many'"),
        ({"ahead": 0}, "ahead must be >= 1, got 0"),
        ({"batch_size": 0}, "batch_size must be >= 1, got 0"),
        ({"labelled": 0}, "labelled must be >= 1"),
        ({"size": [0, 1]}, "size must be"),
    ],
)
def test_arguments_out_of_range(images: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageFolder(images, **arguments)
