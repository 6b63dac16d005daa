from __future__ import annotations

import io
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from ensemble_kd.data import Arrays, InMemory
from ensemble_kd.errors import UserError

Array = npt.NDArray[np.generic]


def sample(count: int = 40, shape: tuple[int, ...] = (3, 5)) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, *shape)), np.arange(count) % 4


def test_with_a_test_part(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    (x, y), (x_test, y_test) = sample(40), sample(12)
    np.savez(path, x=x, y=y, x_test=x_test, y_test=y_test)
    train, test, classes, *_ = Arrays(path).load()
    assert test is not None
    assert classes == 4
    assert np.array_equal(train.inputs, x.astype(np.float32))
    assert np.array_equal(test.labels, y_test)
    data = InMemory(Arrays(path), batch_size=8, val_share=0.2)
    assert data.inputs == (3, 5)
    assert data.sizes() == {"train": 32, "labelled": 32, "val": 8, "test": 12}


@pytest.mark.parametrize("shape", [(7,), (3, 5), (1, 4, 4), (2, 3, 4, 5)])
def test_any_feature_shape(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = tmp_path / "a.npz"
    x, y = sample(40, shape)
    np.savez_compressed(path, x=x, y=y)
    data = InMemory(Arrays(str(path), mean=1.0, std=2.0), batch_size=8)
    assert data.inputs == shape
    batch = next(iter(data.val_dataloader()))
    expected = (x[batch.index.numpy()] - 1) / 2
    assert np.allclose(batch.inputs.numpy(), expected, atol=1e-6)


def test_limit_and_classes(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    x, y = sample()
    np.savez(path, x=x, y=y)
    assert len(Arrays(path, limit=8).load().train.labels) == 8
    assert Arrays(path, classes=6).load().classes == 6
    with pytest.raises(UserError, match=r"labels must be in 0\.\.2, got 3"):
        Arrays(path, classes=3).load()
    with pytest.raises(ValueError, match="classes must be >= 2, got 1"):
        Arrays(path, classes=1)


def refused(path: Path) -> str:
    with pytest.raises(UserError) as raised:
        Arrays(path).load()
    message = str(raised.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_missing(tmp_path: Path) -> None:
    message = refused(tmp_path / "b.npz")
    assert message.startswith(f"no file {tmp_path / 'b.npz'}; set data.source.path")
    assert "no file" in refused(tmp_path)


@pytest.mark.parametrize("keep", [0, 1, 200, 1000])
def test_truncated(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "a.npz"
    x, y = sample()
    np.savez(path, x=x, y=y)
    path.write_bytes(path.read_bytes()[:keep])
    assert re.search("truncated|is empty", refused(path))


def test_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    x, y = sample()
    np.savez_compressed(path, x=x, y=y)
    content = bytearray(path.read_bytes())
    content[300:340] = bytes(40)
    path.write_bytes(content)
    assert "truncated or damaged" in refused(path)


def test_other_formats(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.zeros(3))
    assert "not an npz file" in refused(path)
    text = tmp_path / "a.csv"
    text.write_text("x,y\n1,2\n")
    assert "not an npz file" in refused(text)
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("readme.txt", "hello")
    assert "must hold x and y" in refused(archive)


class Trap:
    """Says so when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return warnings.warn, ("unpickled",)


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    x = sample(4)[0]
    objects = np.array([Trap()] * 4, dtype=object)
    np.savez(path, x=x, y=objects)
    # A warning would be an error of another type.
    assert "nothing is unpickled" in refused(path)


def test_a_pickle_inside_the_archive(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    file = io.BytesIO()
    np.save(file, np.zeros((4, 2)))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", file.getvalue())
        archive.writestr("y.npy", b"\x80\x04N.")
    assert "an array that cannot be read" in refused(path)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": 1}, "must hold x and y, and x_test and y_test both or neither, got x;"),
        ({"a": 1, "b": 1}, "got a, b;"),
        ({}, "got nothing;"),
        ({"x": 1, "y": 1, "x_test": 1}, "got x, y, x_test;"),
    ],
)
def test_missing_arrays(tmp_path: Path, arrays: dict[str, int], message: str) -> None:
    path = tmp_path / "a.npz"
    x, y = sample()
    held: dict[str, Any] = {name: x if name.startswith("x") else y for name in arrays}
    np.savez(path, **held)
    assert message in refused(path)


def test_test_part_that_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    x, y = sample()
    np.savez(path, x=x, y=y, x_test=x[:, :2], y_test=y)
    assert "x_test must hold samples like x, float32 of shape (3, 5)" in refused(path)
    np.savez(path, x=x, y=y, x_test=x.astype(np.uint8), y_test=y)
    assert "got uint8 of shape (3, 5)" in refused(path)
    np.savez(path, x=x, y=y, x_test=x, y_test=y + 1)
    assert "(x_test, y_test): labels must be in 0..3, got 4" in refused(path)
    bad = x.copy()
    bad[3, 0, 0] = np.nan
    np.savez(path, x=x, y=y, x_test=bad, y_test=y)
    assert "(x_test, y_test): inputs hold 1 values that are NaN" in refused(path)
