from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from ensemble_kd.data import FashionMNIST, InMemory
from ensemble_kd.data.fashion_mnist import read_idx
from ensemble_kd.errors import UserError

WriteIdx = Callable[[Path, npt.NDArray[np.uint8]], None]
IMAGES = "fashion_mnist/train-images-idx3-ubyte.gz"
LABELS = "fashion_mnist/train-labels-idx1-ubyte.gz"


def test_idx_from_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"\0\0\x08\x02\0\0\0\x02\0\0\0\x03abcdef"))
    assert read_idx(path, 2).tolist() == [[97, 98, 99], [100, 101, 102]]


def test_tiny_files(fashion_root: Path) -> None:
    train, test, classes, *_ = FashionMNIST(fashion_root).load()
    assert test is not None
    assert classes == 10
    assert train.inputs.shape == (60, 1, 28, 28)
    assert test.inputs.shape == (20, 1, 28, 28)
    assert train.inputs.dtype == np.uint8
    content = gzip.decompress((fashion_root / IMAGES).read_bytes())
    assert train.inputs.tobytes() == content[16:]


def test_through_the_datamodule(fashion_root: Path) -> None:
    data = InMemory(FashionMNIST(fashion_root, limit=40), batch_size=7, val_share=0.25)
    assert data.sizes() == {"train": 30, "labelled": 30, "val": 10, "test": 20}
    assert data.inputs == (1, 28, 28)
    assert sum(len(batch.target) for batch in data.test_dataloader()) == 20


def test_limit_is_stratified(fashion_root: Path) -> None:
    assert (
        np.bincount(FashionMNIST(fashion_root, limit=30).load().train.labels).tolist() == [3] * 10
    )


def refused(root: Path) -> str:
    with pytest.raises(UserError) as raised:
        FashionMNIST(root).load()
    message = str(raised.value)
    assert "\n" not in message
    return message


def test_missing_file_says_where_and_how(tmp_path: Path) -> None:
    message = refused(tmp_path)
    assert message.startswith(f"no file {tmp_path / IMAGES}; ")
    assert "https://github.com/zalandoresearch/fashion-mnist" in message
    assert "ENSEMBLE_KD_DATA" in message


@pytest.mark.parametrize("keep", [0.5, 0.99])
def test_truncated(fashion_root: Path, keep: float) -> None:
    path = fashion_root / IMAGES
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    assert re.search("train-images.* cannot be unpacked: it is truncated", refused(fashion_root))


@pytest.mark.parametrize("content", [b"<html>not found</html>", b"\x1f\x8b\x08" + b"\xff" * 40])
def test_not_gzip(fashion_root: Path, content: bytes) -> None:
    (fashion_root / LABELS).write_bytes(content)
    assert "cannot be unpacked" in refused(fashion_root)


def test_empty_file(fashion_root: Path) -> None:
    (fashion_root / LABELS).write_bytes(b"")
    assert "train-labels-idx1-ubyte.gz is empty" in refused(fashion_root)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected the first bytes 00000801, got ;"),
        (b"\0\0\x08\x03\0\0\0\x3c", "expected the first bytes 00000801, got 00000803"),
        (b"\0\0\x08\x01\0\0", "has no whole header"),
        (b"\0\0\x08\x01\0\0\0\x3c" + b"\0" * 59, "should hold 60 values of shape (60,)"),
        (b"\0\0\x08\x01\0\0\0\x3c" + b"\0" * 61, "after its header, got 61"),
        (b"\0\0\x08\x01\xff\xff\xff\xff" + b"\0" * 9, "should hold 4294967295 values"),
    ],
)
def test_wrong_idx(fashion_root: Path, content: bytes, message: str) -> None:
    (fashion_root / LABELS).write_bytes(gzip.compress(content))
    assert message in refused(fashion_root)


def test_different_lengths(fashion_root: Path, idx: WriteIdx) -> None:
    idx(fashion_root / LABELS, np.zeros(59, np.uint8))
    assert "expected one label for each of 60 samples" in refused(fashion_root)


def test_labels_out_of_range(fashion_root: Path, idx: WriteIdx) -> None:
    idx(fashion_root / LABELS, np.full(60, 10, np.uint8))
    assert "labels must be in 0..9, got 10 (60 labels out of range" in refused(fashion_root)


def test_no_samples(fashion_root: Path, idx: WriteIdx) -> None:
    idx(fashion_root / IMAGES, np.zeros((0, 28, 28), np.uint8))
    idx(fashion_root / LABELS, np.zeros(0, np.uint8))
    assert "without an empty axis, got (0, 1, 28, 28)" in refused(fashion_root)


def test_the_real_files(real_root: Path) -> None:
    source = FashionMNIST(real_root)
    train, test, classes, *_ = source.load()
    assert test is not None
    assert np.bincount(train.labels).tolist() == [6000] * classes
    assert np.bincount(test.labels).tolist() == [1000] * classes
    pixels = np.bincount(train.inputs.ravel(), minlength=256) / train.inputs.size
    values = np.arange(256) / 255
    mean = float(pixels @ values)
    assert source.mean == pytest.approx((mean,), abs=1e-4)
    assert source.std == pytest.approx((float(pixels @ (values - mean) ** 2) ** 0.5,), abs=1e-4)
