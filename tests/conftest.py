"""Every test works in a folder of its own; tiny files in the formats of the real data sets."""

from __future__ import annotations

import gzip
import io
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from ensemble_kd.__main__ import main


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
