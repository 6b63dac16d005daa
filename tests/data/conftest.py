"""Tiny files in the formats of the real data sets, and where the real ones may lie."""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from ensemble_kd.data import Parts, Samples


class Held:
    """A source whose arrays the test made itself."""

    def __init__(
        self,
        counts: list[int],
        shape: tuple[int, ...] = (2, 3),
        test: int = 0,
        mean: float = 0.0,
        std: float = 1.0,
    ) -> None:
        rng = np.random.default_rng(0)
        self.labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
        self.inputs = rng.normal(size=(len(self.labels), *shape)).astype(np.float32)
        # The first value of a sample is its row number, so that a batch tells where it came from.
        self.inputs.reshape(len(self.labels), -1)[:, 0] = np.arange(len(self.labels))
        self.test = Samples(self.inputs[:test] + 1, self.labels[:test]) if test else None
        self.mean = mean
        self.std = std

    def load(self) -> Parts:
        train = Samples(self.inputs, self.labels)
        return Parts(train, self.test, int(self.labels.max()) + 1)


MakeSource = Callable[..., Held]


@pytest.fixture
def held() -> MakeSource:
    """A factory of in-memory sources: samples per class, shape, size of an official test part."""
    return Held


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


@pytest.fixture
def real_root() -> Path:
    """The folder of the real data sets; the test is skipped where there is none."""
    beside = Path(__file__).parents[3] / "shared" / "data"
    root = Path(os.environ.get("ENSEMBLE_KD_DATA", beside))
    if not (root / "fashion_mnist").is_dir() or not (root / "cifar100").is_dir():
        pytest.skip(f"no real data sets in {root}; set ENSEMBLE_KD_DATA")
    return root
