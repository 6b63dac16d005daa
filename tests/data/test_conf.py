from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue
from PIL import Image

from ensemble_kd.data import ImageFolder, InMemory

FOLDER = Path(__file__).parents[2] / "conf" / "data"


def opened(name: str, root: Path, **values: Any) -> InMemory | ImageFolder:
    """The datamodule of one option, as a run with these roots would open it."""
    node = OmegaConf.load(FOLDER / f"{name}.yaml")
    surroundings = {"paths": {"data": str(root), "store": str(root / "store")}}
    config = OmegaConf.create({"seed": 3, "batch_size": 16, **surroundings, "data": node})
    for key, value in values.items():
        OmegaConf.update(config, key.replace("__", "."), value)
    data = instantiate(config.data, _convert_="all")
    assert isinstance(data, InMemory | ImageFolder)
    samples = data if isinstance(data, InMemory) else data.samples
    assert (samples.seed, data.batch_size, samples.batch_size) == (3, 16, 16)
    return data


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_first_line_says_what_it_is(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# ")
    names = ("ImageFolder", "InMemory", "Tasks")
    targets = [f"_target_: ensemble_kd.data.{name}" for name in names]
    assert sum(line in targets for line in lines) == 1


def test_digits(tmp_path: Path) -> None:
    data = opened("digits", tmp_path)
    assert data.inputs == (1, 8, 8)
    assert data.classes == 10
    assert data.sizes() == {"train": 1257, "labelled": 100, "val": 270, "test": 270}
    assert next(iter(data.train_dataloader())).inputs.shape == (16, 1, 8, 8)


def test_fashion_mnist(fashion_root: Path) -> None:
    values = {"data__source__limit": 40, "data__labelled": 20, "data__val_share": 0.25}
    data = opened("fashion_mnist", fashion_root, **values)
    assert data.sizes() == {"train": 30, "labelled": 20, "val": 10, "test": 20}
    assert next(iter(data.train_dataloader())).inputs.shape == (16, 1, 28, 28)


def test_fashion_mnist_on_the_real_files(real_root: Path) -> None:
    data = opened("fashion_mnist", real_root)
    assert data.sizes() == {"train": 9000, "labelled": 500, "val": 1000, "test": 10000}
    batch = next(iter(data.val_dataloader()))
    assert abs(float(batch.inputs.mean())) < 0.3


def test_cifar100(cifar_root: Path) -> None:
    data = opened("cifar100", cifar_root, data__val_share=0.25)
    assert data.inputs == (3, 32, 32)
    assert data.sizes() == {"train": 300, "labelled": 300, "val": 100, "test": 100}
    assert next(iter(data.train_dataloader())).inputs.shape == (16, 3, 32, 32)
    assert len(list((cifar_root / "store" / "decoded").iterdir())) == 2


def test_arrays(tmp_path: Path) -> None:
    with pytest.raises(MissingMandatoryValue):
        opened("arrays", tmp_path)
    np.savez(tmp_path / "a.npz", x=np.zeros((40, 7)), y=np.arange(40) % 2)
    data = opened("arrays", tmp_path, data__source__path=str(tmp_path / "a.npz"))
    assert data.inputs == (7,)
    assert data.sizes() == {"train": 28, "labelled": 28, "val": 6, "test": 6}


def test_image_folder(tmp_path: Path) -> None:
    with pytest.raises(MissingMandatoryValue):
        opened("image_folder", tmp_path)
    for number in range(40):
        path = tmp_path / "images" / f"class {number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (5, 4), (number, 0, 0)).save(path)
    data = opened("image_folder", tmp_path, data__path=str(tmp_path / "images"))
    assert data.inputs == (3, 4, 5)
    assert data.names == ("class 0", "class 1")
    assert data.sizes() == {"train": 28, "labelled": 28, "val": 6, "test": 6}
    assert len(list(data.train_dataloader())) == 1
