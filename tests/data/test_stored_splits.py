"""Splits that are written once and read ever after."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensemble_kd.data import ImageFolder, InMemory
from ensemble_kd.data.splits import Split, split
from ensemble_kd.data.stored_splits import StoredSplit
from ensemble_kd.errors import UserError
from ensemble_kd.types import UNLABELLED

LABELS = np.array([0, 1, 2, UNLABELLED] * 20)


def stored(folder: Path | None, **changes: Any) -> Split:
    asked = {"labels": LABELS, "classes": 3, "val_share": 0.2, "test_share": 0.1, "seed": 5}
    kept = StoredSplit(folder, **{**asked, **changes})
    rows = kept.rows()
    kept.keep(rows)
    return rows


def test_looking_at_it_writes_nothing(tmp_path: Path) -> None:
    kept = StoredSplit(tmp_path / "splits", LABELS, 3, 0.2, 0.1, 5)
    assert same(kept.rows(), split(LABELS, 3, 0.2, 0.1, seed=5))
    assert not (tmp_path / "splits").exists()


def same(one: Split, other: Split) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def only(folder: Path) -> Path:
    (path,) = folder.glob("*.json")
    return path


def test_a_split_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = stored(tmp_path / "splits")
    assert same(made, split(LABELS, 3, 0.2, 0.1, seed=5))

    def changed(*_: Any) -> Split:
        raise AssertionError("made again")

    monkeypatch.setattr("ensemble_kd.data.stored_splits.split", changed)
    read = stored(tmp_path / "splits")
    assert same(made, read)
    assert all(part.dtype == np.int64 for part in read)
    with pytest.raises(AssertionError, match="made again"):
        stored(None)


def test_the_file_says_all_of_it(tmp_path: Path) -> None:
    made = stored(tmp_path)
    content = json.loads(only(tmp_path).read_text())
    assert content["seed"] == 5
    assert content["shares"] == {"val": 0.2, "test": 0.1}
    assert content["rows"] == {name: part.tolist() for name, part in made._asdict().items()}
    assert content["counts"]["val"] == {"of each class": [4, 4, 4], "unlabelled": 0}
    assert content["counts"]["train"]["unlabelled"] == 20


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": LABELS[::-1]},
        {"classes": 4, "labels": np.append(LABELS, [3, 3, 3])},
        {"val_share": 0.3},
        {"test_share": None},
        {"val_share": None},
        {"seed": 6},
    ],
    ids=["labels", "classes", "val", "no test", "no val", "seed"],
)
def test_all_that_decides_a_split_is_another_file(tmp_path: Path, changes: Any) -> None:
    stored(tmp_path)
    stored(tmp_path, **changes)
    assert len(list(tmp_path.glob("*.json"))) == 2
    assert same(stored(tmp_path, **changes), stored(None, **changes))


def without_a_row(said: dict[str, Any]) -> None:
    said["rows"]["val"].pop()


def moved(said: dict[str, Any]) -> None:
    said["rows"]["train"].append(said["rows"]["val"].pop())


def twice(said: dict[str, Any]) -> None:
    said["rows"]["val"][0] = said["rows"]["test"][0]


def other_seed(said: dict[str, Any]) -> None:
    said["seed"] = 7


@pytest.mark.parametrize("damage", [without_a_row, moved, twice, other_seed])
def test_a_file_that_says_something_else(
    tmp_path: Path, damage: Callable[[dict[str, Any]], None]
) -> None:
    stored(tmp_path)
    path = only(tmp_path)
    content = json.loads(path.read_text())
    damage(content)
    path.write_text(json.dumps(content))
    check_refused(tmp_path, path)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "null", "\udcff"])
def test_a_damaged_file(tmp_path: Path, content: str) -> None:
    stored(tmp_path)
    path = only(tmp_path)
    path.write_bytes(content.encode(errors="surrogateescape"))
    check_refused(tmp_path, path)


def check_refused(folder: Path, path: Path) -> None:
    with pytest.raises(UserError) as raised:
        stored(folder)
    assert str(raised.value) == (
        f"{path}: this stored split is damaged; remove the file to have it made anew"
    )


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        stored(tmp_path / "file")


def test_later_code_splits_as_earlier_code_did(
    tmp_path: Path, held: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(folder: Path | None) -> InMemory:
        return InMemory(held([40, 40]), splits=folder)

    digest, sizes = opened(tmp_path).digest, opened(tmp_path).sizes()
    assert not list(tmp_path.glob("*.json"))
    opened(tmp_path).prepare_data()
    assert digest == opened(None).digest

    def otherwise(labels: Any, *_: Any) -> Split:
        rows = np.arange(len(labels))
        return Split(rows[:60], rows[60:70], rows[70:])

    monkeypatch.setattr("ensemble_kd.data.stored_splits.split", otherwise)
    assert opened(tmp_path).digest == digest
    assert opened(tmp_path).sizes() == sizes
    assert opened(None).digest != digest


def test_images_too(tmp_path: Path, images: Path) -> None:
    ImageFolder(images, workers=0, splits=tmp_path / "splits").prepare_data()
    content = json.loads(only(tmp_path / "splits").read_text())
    assert content["counts"]["val"]["of each class"] == [9, 4, 5]
