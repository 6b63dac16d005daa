"""Images of the library datasets, written by the test itself."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from ensemble_kd.data import HuggingFace, InMemory
from ensemble_kd.errors import UserError

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def quiet() -> None:
    datasets.disable_progress_bars()


def table(columns: dict[str, list[Any]], kinds: dict[str, Any] | None = None) -> Any:
    made = datasets.Dataset.from_dict(columns)
    for name, kind in (kinds or {}).items():
        made = made.cast_column(name, kind)
    return made


def saved(folder: str = "saved", **splits: Any) -> str:
    datasets.DatasetDict(splits).save_to_disk(folder)
    return folder


def picture(number: int, size: tuple[int, int] = (4, 5), mode: str = "RGB") -> dict[str, Any]:
    file = io.BytesIO()
    Pillow.new(mode, size[::-1], number if mode == "L" else (number, 0, 0)).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def pictures(count: int = 20, **settings: Any) -> Any:
    made = [picture(number, **settings) for number in range(count)]
    labels = [number % 2 for number in range(count)]
    return table({"img": made, "label": labels}, {"img": datasets.Image()})


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_images(mode: str) -> None:
    source = HuggingFace(saved(train=pictures(mode=mode), test=pictures(6)), image="img")
    data = InMemory(source, batch_size=8, val_share=0.2)
    channels = {"L": 1, "RGB": 3}[mode]
    assert data.inputs == (channels, 4, 5)
    assert data.sizes() == {"train": 16, "labelled": 16, "val": 4, "test": 6}
    assert data.names == ("0", "1")
    assert data.mean == ((0.5,) if mode == "L" else (0.485, 0.456, 0.406))
    train = source.load().train
    assert train.inputs.dtype == np.uint8
    assert train.inputs[:, 0, 0, 0].tolist() == list(range(20))
    assert torch.equal(next(iter(data.test_dataloader())).index, torch.arange(20, 26))


def test_images_from_files_scaled() -> None:
    for number in range(4):
        Path(f"{number}.png").write_bytes(picture(number, (8 + number, 8))["bytes"])
    paths = [str(Path(f"{number}.png").absolute()) for number in range(4)]
    made = table({"img": paths, "label": [0, 1, 0, 1]}, {"img": datasets.Image()})
    made.save_to_disk("files")
    train, *_ = HuggingFace("files", image="img", size=[4, 4], channels=1, mean=0.1, std=0.2).load()
    assert train.inputs.shape == (4, 1, 4, 4)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ([picture(0), picture(1, (3, 5))], "the image of row 2 is 3x5, the first is 4x5"),
        ([picture(0), {"bytes": b"no image", "path": None}], "the image of row 2 cannot be read"),
        ([picture(0), None], "row 2 has no image"),
    ],
)
def test_images_that_do_not_fit(made: list[Any], message: str) -> None:
    table({"img": made, "label": [0, 1]}, {"img": datasets.Image()}).save_to_disk("images")
    with pytest.raises(UserError, match=message) as raised:
        HuggingFace("images", image="img").load()
    assert "\n" not in str(raised.value)


def test_images_of_another_part_do_not_fit() -> None:
    folder = saved(train=pictures(), test=pictures(6, size=(4, 6)))
    with pytest.raises(UserError, match="images must be as those of the training part, 4x5, got 4"):
        HuggingFace(folder, image="img").load()
