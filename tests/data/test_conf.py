from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue
from PIL import Image

from ensemble_kd.config import compose
from ensemble_kd.data import ImageFolder, InMemory, TangAugmentation
from ensemble_kd.errors import UserError
from ensemble_kd.opening import open_data

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
    names = ("ImageFolder", "InMemory", "MaskedLanguage", "Tasks")
    targets = ["_target_: ???", *(f"_target_: ensemble_kd.data.{name}" for name in names)]
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
    data.prepare_data()
    assert len(list((tmp_path / "store" / "splits").iterdir())) == 1


def test_table(tmp_path: Path) -> None:
    lines = [f"{number},{number % 3},c{number % 2}" for number in range(40)]
    (tmp_path / "a.csv").write_text("\n".join(["size,kind,label", *lines]) + "\n")
    data = opened("table", tmp_path, data__source__path=str(tmp_path / "a.csv"))
    assert data.inputs == (2,)
    assert data.names == ("c0", "c1")
    assert data.sizes() == {"train": 28, "labelled": 28, "val": 6, "test": 6}
    data.prepare_data()
    assert len(list((tmp_path / "store" / "splits").iterdir())) == 1


def test_text(tmp_path: Path, texts: Callable[..., list[str]]) -> None:
    lines = [f"{text},{number % 2}" for number, text in enumerate(texts(40))]
    (tmp_path / "a.csv").write_text("\n".join(["sentence,label", *lines]) + "\n")
    values = {"data__source__path": str(tmp_path / "a.csv"), "data__source__text": ["sentence"]}
    data = opened("text", tmp_path, **values)
    assert data.sizes() == {"train": 28, "labelled": 28, "val": 6, "test": 6}
    assert next(iter(data.train_dataloader())).inputs.ids.shape == (16, *data.inputs)


def test_sst2(tmp_path: Path, texts: Callable[..., list[str]]) -> None:
    (tmp_path / "sst2").mkdir()
    for part, count in (("train", 40), ("dev", 6), ("test", 8)):
        lines = [f"{text}\t{number % 2}" for number, text in enumerate(texts(count))]
        content = "\n".join(["sentence\tlabel", *lines]) + "\n"
        (tmp_path / "sst2" / f"{part}.tsv.gz").write_bytes(gzip.compress(content.encode()))
    data = opened("sst2", tmp_path)
    assert data.inputs == (64,)
    assert data.names == ("negative", "positive")
    assert data.sizes() == {"train": 40, "labelled": 40, "val": 6, "test": 8}


def test_wnut17(tmp_path: Path, texts: Callable[..., list[str]]) -> None:
    (tmp_path / "wnut17").mkdir()
    for part, count in (("train", 40), ("dev", 6), ("test", 8)):
        content = "".join(
            "".join(f"{word}\t{('O', 'B-thing')[len(word) % 2]}\n" for word in text.split()) + "\n"
            for text in texts(count)
        )
        (tmp_path / "wnut17" / f"{part}.conll.gz").write_bytes(gzip.compress(content.encode()))
    data = opened("wnut17", tmp_path)
    assert isinstance(data, InMemory)
    assert (data.inputs, data.per_token) == ((64,), True)
    assert data.names == ("O", "B-thing")
    assert data.sizes() == {"train": 40, "labelled": 40, "val": 6, "test": 8}


def test_words(tmp_path: Path) -> None:
    lines = [f"word{number}\t{'OB'[number % 2]}\nend\tO\n\n" for number in range(40)]
    (tmp_path / "a.conll").write_text("".join(lines))
    data = opened("words", tmp_path, data__source__path=str(tmp_path / "a.conll"))
    assert isinstance(data, InMemory)
    assert data.per_token
    assert data.sizes() == {"train": 28, "labelled": 28, "val": 6, "test": 6}


@pytest.mark.parametrize("name", ["sst2", "wnut17"])
def test_absent_texts_are_one_line_that_says_where_they_are(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"no file .*train.*gz; take .*github.*paths\.data") as line:
        opened(name, tmp_path).setup()
    assert "\n" not in str(line.value)


def test_huggingface(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    rows = {"sentence": [f"text {k}" for k in range(40)], "label": [k % 2 for k in range(40)]}
    datasets.Dataset.from_dict(rows).save_to_disk(str(tmp_path / "saved"))
    data = opened(
        "huggingface",
        tmp_path,
        data__source__path=str(tmp_path / "saved"),
        data__source__text=["sentence"],
        data__tokenizer={"_target_": "ensemble_kd.data.WordLevel"},
    )
    assert data.sizes() == {"train": 28, "labelled": 28, "val": 6, "test": 6}


MODULE = """
import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader, TensorDataset


class Data(LightningDataModule):
    def __init__(self, size=8):
        super().__init__()
        self.size = size

    def train_dataloader(self):
        samples = torch.arange(40.0)[:, None]
        return DataLoader(TensorDataset(samples, torch.arange(40) % 2), self.size)

    val_dataloader = train_dataloader
"""


def test_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_own_data.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    asked = ["data=own", "data._target_=my_own_data.Data", "+data.size=5", "allow=[my_own_data]"]
    data = open_data(compose(asked), None, ["my_own_data"])
    assert data.sizes() == {"train": 40, "labelled": 40, "val": 40}
    assert data.inputs == (1,)
    assert next(iter(data.train_dataloader())).inputs.shape == (5, 1)
    with pytest.raises(UserError, match=r"data\._target_: expected a class of .*allow=\[package\]"):
        open_data(compose(asked[:-1]), None, [])
    with pytest.raises(UserError, match=r"data\._target_: Missing mandatory value"):
        open_data(compose(["data=own"]), None, [])


@pytest.mark.parametrize("name", ["huggingface", "sst2", "text"])
def test_texts_can_be_made_up(name: str) -> None:
    rule = "{_target_: ensemble_kd.data.TangAugmentation, tries: 2}"
    found = compose([f"data={name}", f"data.synthesise={rule}"]).data.synthesise
    assert instantiate(found) == TangAugmentation(2)
    assert compose([f"data={name}"]).data.synthesise is None
