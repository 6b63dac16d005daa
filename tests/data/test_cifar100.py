from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from ensemble_kd.data import CIFAR100, InMemory
from ensemble_kd.errors import UserError

TRAIN = "cifar100/train.parquet"


def reference_images(path: Path) -> npt.NDArray[np.uint8]:
    rows = parquet.read_table(path).to_pylist()
    images = [np.asarray(Image.open(io.BytesIO(row["img"]["bytes"]))) for row in rows]
    return np.stack(images).transpose(0, 3, 1, 2)


def test_tiny_files(cifar_root: Path) -> None:
    train, test, classes, *_ = CIFAR100(cifar_root).load()
    assert test is not None
    assert classes == 100
    assert train.inputs.dtype == np.uint8
    assert np.array_equal(train.inputs, reference_images(cifar_root / TRAIN))
    assert np.array_equal(test.inputs, reference_images(cifar_root / "cifar100/test.parquet"))
    labels = parquet.read_table(cifar_root / TRAIN)["fine_label"].to_pylist()
    assert train.labels.tolist() == labels


def test_limit_takes_some_of_each_class(cifar_root: Path) -> None:
    whole = CIFAR100(cifar_root).load().train
    part = CIFAR100(cifar_root, limit=200).load().train
    assert np.bincount(part.labels).tolist() == [2] * 100
    first = CIFAR100(cifar_root, limit=30, stratified=False).load().train
    assert np.array_equal(first.inputs, whole.inputs[:30])


def test_through_the_datamodule(cifar_root: Path) -> None:
    data = InMemory(CIFAR100(cifar_root), batch_size=16, val_share=0.25)
    assert data.sizes() == {"train": 300, "labelled": 300, "val": 100, "test": 100}
    assert data.inputs == (3, 32, 32)


def test_cache_saves_decoding(cifar_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = cifar_root / "deep" / "cache"
    once = CIFAR100(cifar_root, cache).load()
    files = sorted(path.name for path in cache.iterdir())
    assert len(files) == 2
    assert all(re.fullmatch(r"cifar100-[0-9a-f]{32}\.npy", name) for name in files)

    def forbidden(file: object) -> None:
        raise AssertionError("decoded again")

    with monkeypatch.context() as patched:
        patched.setattr(Image, "open", forbidden)
        again = CIFAR100(cifar_root, cache).load()
    assert np.array_equal(again.train.inputs, once.train.inputs)
    # Another choice of rows, and other content, are other entries.
    CIFAR100(cifar_root, cache, limit=200).load()
    assert len(list(cache.iterdir())) == 3


def test_cache_follows_the_content(cifar_root: Path, cifar: Callable[..., None]) -> None:
    cache = cifar_root / "cache"
    CIFAR100(cifar_root, cache).load()
    images = [np.full((32, 32, 3), n % 256, np.uint8) for n in range(400)]
    cifar(cifar_root / TRAIN, images, np.arange(400) % 100)
    assert np.array_equal(
        CIFAR100(cifar_root, cache).load().train.inputs, np.stack(images).transpose(0, 3, 1, 2)
    )


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY broken", None])
def test_damaged_cache_is_made_anew(cifar_root: Path, content: bytes | None) -> None:
    cache = cifar_root / "cache"
    once = CIFAR100(cifar_root, cache).load()
    for path in cache.iterdir():
        path.write_bytes(path.read_bytes()[:-100] if content is None else content)
    assert np.array_equal(CIFAR100(cifar_root, cache).load().train.inputs, once.train.inputs)
    assert all(np.load(path).shape[1:] == (3, 32, 32) for path in cache.iterdir())


def test_cache_that_cannot_be_written(cifar_root: Path) -> None:
    blocked = cifar_root / "file"
    blocked.write_text("in the way")
    with pytest.raises(UserError, match=r"cannot write decoded images to .*/file .*source\.cache"):
        CIFAR100(cifar_root, blocked).load()


def test_an_interrupted_write_leaves_nothing(
    cifar_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(file: io.IOBase, array: object, allow_pickle: bool) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        CIFAR100(cifar_root, cifar_root / "cache").load()
    assert list((cifar_root / "cache").iterdir()) == []


def refused(root: Path) -> str:
    with pytest.raises(UserError) as raised:
        CIFAR100(root).load()
    message = str(raised.value)
    assert "\n" not in message
    assert str(root / TRAIN) in message
    return message


def test_missing(tmp_path: Path) -> None:
    message = refused(tmp_path)
    assert message.startswith("no file ")
    assert "uoft-cs/cifar100" in message
    assert "ENSEMBLE_KD_DATA" in message


@pytest.mark.parametrize("keep", [3, 1000, -1])
def test_truncated(cifar_root: Path, keep: int) -> None:
    path = cifar_root / TRAIN
    path.write_bytes(path.read_bytes()[:keep])
    assert "is truncated, damaged or not a parquet file" in refused(cifar_root)


def test_empty(cifar_root: Path, cifar: Callable[..., None]) -> None:
    (cifar_root / TRAIN).write_bytes(b"")
    assert "is empty" in refused(cifar_root)
    cifar(cifar_root / TRAIN, [], [])
    assert "holds no rows" in refused(cifar_root)


@pytest.mark.parametrize(
    "table",
    [
        pa.table({"image": [1], "label": [2]}),
        pa.table({"img": [1], "fine_label": [2]}),
        pa.table({"img": [{"path": "a"}], "fine_label": [2]}),
        pa.table({"img": [{"bytes": b"a", "path": "a"}], "fine_label": ["cat"]}),
        pa.table(
            {"img": [{"bytes": b"a", "path": "a"}], "fine_label": pa.array([None], pa.int64())}
        ),
        pa.table({"img": [{"bytes": None, "path": "a"}], "fine_label": [2]}),
    ],
)
def test_other_columns(cifar_root: Path, table: pa.Table) -> None:
    parquet.write_table(table, cifar_root / TRAIN)
    assert "must have the columns img (bytes, path) and fine_label" in refused(cifar_root)


def test_images_that_cannot_be_decoded(cifar_root: Path) -> None:
    cells = [{"bytes": b"not an image", "path": None}] * 100
    table = pa.table({"img": cells, "fine_label": list(range(100))})
    parquet.write_table(table, cifar_root / TRAIN)
    assert "image 0 cannot be decoded" in refused(cifar_root)


def test_truncated_image(cifar_root: Path) -> None:
    rows = parquet.read_table(cifar_root / TRAIN).to_pylist()
    rows[7]["img"]["bytes"] = rows[7]["img"]["bytes"][:200]
    parquet.write_table(pa.Table.from_pylist(rows), cifar_root / TRAIN)
    assert "image 7 cannot be decoded" in refused(cifar_root)


def test_mixed_sizes(cifar_root: Path, cifar: Callable[..., None]) -> None:
    images = [np.zeros((32, 32, 3), np.uint8)] * 200
    images[150] = np.zeros((30, 31, 3), np.uint8)
    cifar(cifar_root / TRAIN, images, np.arange(200) % 100)
    assert "image 150 must be 32x32, got 31x30" in refused(cifar_root)


def test_labels_out_of_range(cifar_root: Path, cifar: Callable[..., None]) -> None:
    cifar(cifar_root / TRAIN, [np.zeros((32, 32, 3), np.uint8)] * 3, [0, 100, -1])
    assert "labels must be >= 0, got -1" in refused(cifar_root)


def test_the_real_files(real_root: Path) -> None:
    source = CIFAR100(real_root, limit=1000)
    labels = parquet.read_table(real_root / TRAIN, columns=["fine_label"])["fine_label"].to_numpy()
    assert np.bincount(labels).tolist() == [500] * 100
    train, test, *_ = source.load()
    assert test is not None
    assert np.bincount(train.labels).tolist() == [10] * 100
    assert np.bincount(test.labels).tolist() == [100] * 100
    pixels = train.inputs.transpose(1, 0, 2, 3).reshape(3, -1) / 255
    assert source.mean == pytest.approx(pixels.mean(axis=1).tolist(), abs=0.02)
    assert source.std == pytest.approx(pixels.std(axis=1).tolist(), abs=0.02)
