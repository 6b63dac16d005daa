"""A folder for every test, scripts as modules, teachers of other classes, tiny data sets."""

from __future__ import annotations

import gc
import gzip
import importlib.util
import io
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import parquet
from torch import Tensor

from ensemble_kd.__main__ import main
from ensemble_kd.teachers import LabelSpace, covered
from ensemble_kd.types import Output

ROOT = Path(__file__).resolve().parents[1]


def pytest_collection_finish() -> None:
    """Leave what was imported out of later garbage collections: it stays anyway, and is most."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of the test, with no settings from outside."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in ("ENSEMBLE_KD_STORE", "ENSEMBLE_KD_DATA", "HYDRA_FULL_ERROR"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs the command line in this process; returns its exit status."""

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["ensemble_kd", *arguments])
        try:
            main()
        except SystemExit as stop:
            return int(stop.code or 0)
        return 0

    return run


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Loads a script of this repository as a module, which finds those beside it."""

    def load(name: str) -> ModuleType:
        path = ROOT / name
        monkeypatch.syspath_prepend(str(path.parent))
        spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def translated() -> Callable[..., tuple[Tensor, Output]]:
    """What a teacher of some classes says at random, and what that says of the ant to the elk."""
    names = ("ant", "bee", "cat", "dog", "elk")

    def say(classes: list[Any], seed: int = 0, samples: int = 3) -> tuple[Tensor, Output]:
        generator = torch.Generator().manual_seed(seed)
        own = torch.randn(samples, len(classes), generator=generator, dtype=torch.float64)
        return own, LabelSpace(covered(classes, names), 5)(Output(own))

    return say


@pytest.fixture
def softmax() -> Callable[[list[float]], list[float]]:
    """The textbook's, to hold results against."""

    def of(logits: list[float]) -> list[float]:
        powers = [math.exp(z) for z in logits]
        return [power / sum(powers) for power in powers]

    return of


def write_idx(path: Path, array: npt.NDArray[np.uint8]) -> None:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


@pytest.fixture
def idx() -> Callable[[Path, npt.NDArray[np.uint8]], None]:
    """Writes a gzipped idx file."""
    return write_idx


@pytest.fixture
def fashion_root(tmp_path: Path) -> Path:
    """60 training and 20 test images, of which 6 and 2 are of each class."""
    rng = np.random.default_rng(1)
    folder = tmp_path / "fashion_mnist"
    folder.mkdir()
    for part, count in (("train", 60), ("t10k", 20)):
        labels = rng.permutation(np.arange(count) % 10).astype(np.uint8)
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", labels)
    return tmp_path


def encoded(image: npt.NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def write_parquet(
    path: Path, images: list[npt.NDArray[np.uint8]], labels: list[int] | npt.NDArray[np.int64]
) -> None:
    cells = [{"bytes": encoded(image), "path": None} for image in images]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {"img": pa.array(cells, kind), "fine_label": pa.array(labels, pa.int64())}
    parquet.write_table(pa.table(columns), path)


@pytest.fixture
def cifar() -> Callable[..., None]:
    """Writes a parquet file of images (32, 32, 3) and labels."""
    return write_parquet


@pytest.fixture
def cifar_root(tmp_path: Path) -> Path:
    """400 training and 100 test images, 4 and 1 of each class."""
    rng = np.random.default_rng(2)
    folder = tmp_path / "cifar100"
    folder.mkdir()
    for part, count in (("train", 400), ("test", 100)):
        images = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        labels = rng.permutation(np.arange(count) % 100)
        write_parquet(folder / f"{part}.parquet", list(images), labels)
    return tmp_path


GOOD, BAD = ("fine", "lovely", "bright", "moving"), ("dull", "awful", "tired", "empty")
PLAIN = ("film", "plot", "actor", "scene", "the", "a", "of", "ending", "music", "camera")
TAGGED = ("Ann B-person", "Lee I-person", "Rome B-location", "goes O", "to O", "sees O", "now O")


def sentences(count: int, seed: int) -> list[str]:
    """Lines of a table: plain words with a good or a bad one among them, and which it was."""
    rng = np.random.default_rng(seed)
    lines = ["sentence\tlabel"]
    for number in range(count):
        words = list(rng.choice(PLAIN, int(rng.integers(3, 9))))
        words.insert(int(rng.integers(len(words))), str(rng.choice((BAD, GOOD)[number % 2])))
        lines.append(f"{' '.join(words)}\t{number % 2}")
    return lines


def messages(count: int, seed: int) -> list[str]:
    """Words with tags, line by line, and an empty line behind each message."""
    rng = np.random.default_rng(seed)
    lines: list[str] = []
    for _ in range(count):
        lines += [word.replace(" ", "\t") for word in rng.choice(TAGGED, int(rng.integers(2, 8)))]
        lines.append("")
    return [*(word.replace(" ", "\t") for word in TAGGED), "", *lines]


@pytest.fixture
def text_root(tmp_path: Path) -> Path:
    """60 sentences to train on and 20 each to validate and test, and as many tagged messages."""
    for name, write in (("sst2", sentences), ("wnut17", messages)):
        end = "tsv" if name == "sst2" else "conll"
        (tmp_path / name).mkdir()
        for number, (part, count) in enumerate({"train": 60, "dev": 20, "test": 20}.items()):
            text = "\n".join(write(count, number)) + "\n"
            (tmp_path / name / f"{part}.{end}.gz").write_bytes(gzip.compress(text.encode()))
    return tmp_path
