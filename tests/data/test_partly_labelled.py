"""Training data of which some samples have no label, as they come."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ensemble_kd.data import Arrays, Folders, ImageFolder, InMemory, Munge
from ensemble_kd.data.splits import split, strata
from ensemble_kd.errors import UserError
from ensemble_kd.types import UNLABELLED, Batch

Make = Callable[..., Any]


def arrays(path: Path, labelled: int = 60, unlabelled: int = 40, classes: int = 3) -> Arrays:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(labelled + unlabelled, 5)).astype(np.float32)
    y = np.concatenate([np.arange(labelled) % classes, np.full(unlabelled, UNLABELLED)])
    order = rng.permutation(len(y))
    np.savez(path, x=x[order], y=y[order])
    return Arrays(path)


def whole(data: InMemory) -> Batch:
    (batch,) = data.train_dataloader()
    return batch


def served(data: Any) -> dict[str, list[int]]:
    loaders = {"val": data.val_dataloader(), "test": data.test_dataloader()}
    return {part: [n for b in loader for n in b.index.tolist()] for part, loader in loaders.items()}


def test_all_unlabelled_samples_are_for_training(tmp_path: Path) -> None:
    source = arrays(tmp_path / "a.npz")
    labels = source.load().train.labels
    data = InMemory(source, batch_size=82, val_share=0.15, test_share=0.15)
    assert data.sizes() == {"train": 82, "labelled": 42, "val": 9, "test": 9}
    assert data.classes == 3
    batch = whole(data)
    assert batch.mask is not None
    assert int(batch.mask.sum()) == 42
    assert torch.equal(batch.mask, batch.target != UNLABELLED)
    assert np.array_equal(batch.target.numpy(), labels[batch.index.numpy()])
    for rows in served(data).values():
        assert np.bincount(labels[rows]).tolist() == [3, 3, 3]
    assert all(each.mask is None for each in data.val_dataloader())


def test_labels_are_drawn_among_those_that_there_are(tmp_path: Path) -> None:
    source = arrays(tmp_path / "a.npz")
    labels = source.load().train.labels
    data = InMemory(source, batch_size=82, labelled=12)
    assert data.sizes()["labelled"] == 12
    batch = whole(data)
    assert batch.mask is not None
    chosen = batch.index[batch.mask].numpy()
    assert np.bincount(labels[chosen]).tolist() == [4, 4, 4]
    assert (batch.target[~batch.mask] == UNLABELLED).all()
    with pytest.raises(UserError, match=r"data.labelled must be between 3 .* and 42, got 43"):
        InMemory(source, labelled=43).setup()
    assert InMemory(source, labelled=42).digest == InMemory(source).digest


def test_labels_alone(tmp_path: Path) -> None:
    data = InMemory(arrays(tmp_path / "a.npz"), batch_size=8, labelled_only=True)
    batches = list(data.train_dataloader())
    assert len(batches) == 82 // 8
    assert all(batch.mask is None and int(batch.target.min()) >= 0 for batch in batches)


def test_made_up_samples_come_of_all(tmp_path: Path) -> None:
    data = InMemory(arrays(tmp_path / "a.npz"), batch_size=164, synthesise=Munge())
    batch = whole(data)
    assert batch.mask is not None
    assert int(batch.mask.sum()) == 42
    assert len(batch.target) == 2 * 82


def test_a_split_as_if_there_were_labelled_samples_only() -> None:
    labels = np.arange(90) % 3
    gaps = np.insert(labels, [5, 5, 60], UNLABELLED)
    plain, parts = (split(each, 3, 0.2, 0.2, seed=4) for each in (labels, gaps))
    known = np.flatnonzero(gaps != UNLABELLED)
    assert [len(part) for part in plain[1:]] == [len(part) for part in parts[1:]] == [18, 18]
    assert parts.val.tolist() == known[plain.val].tolist()
    assert parts.test.tolist() == known[plain.test].tolist()
    assert sorted(np.concatenate(parts).tolist()) == list(range(93))
    nothing = split(gaps, 3, None, None, seed=4)
    assert nothing.train.tolist() == list(range(93))


def test_sequences_are_divided_by_whether_anything_is_known() -> None:
    labels = np.array([[1, UNLABELLED], [UNLABELLED] * 2, [UNLABELLED, 0]])
    found, classes = strata(labels, 5)
    assert (found.tolist(), classes) == ([0, UNLABELLED, 0], 1)
    flat = np.array([2, UNLABELLED])
    assert strata(flat, 3)[0] is flat


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([0, 1, -1], r"labels must be >= 0, got -1 \(1 negative labels, first in sample 2\)"),
        ([UNLABELLED] * 3, "labels must name at least 2 classes, got no label"),
        ([0, UNLABELLED, 0], "labels must name at least 2 classes, got only class 0"),
    ],
)
def test_what_stands_for_no_label(tmp_path: Path, y: list[int], message: str) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 2)), y=y)
    with pytest.raises(UserError, match=message):
        Arrays(tmp_path / "a.npz").load()


def test_a_test_part_is_labelled(tmp_path: Path) -> None:
    x, y = np.zeros((4, 2)), [0, 1, 0, 1]
    np.savez(tmp_path / "a.npz", x=x, y=y, x_test=x, y_test=[0, 1, 0, UNLABELLED])
    with pytest.raises(UserError, match=r"\(x_test, y_test\): labels must be >= 0, got -100"):
        Arrays(tmp_path / "a.npz").load()


def test_a_limit_keeps_the_share_of_the_unlabelled(tmp_path: Path) -> None:
    arrays(tmp_path / "a.npz", 60, 40, classes=2)
    labels = Arrays(tmp_path / "a.npz", limit=50).load().train.labels
    counts = {label: int((labels == label).sum()) for label in (0, 1, UNLABELLED)}
    assert counts == {0: 15, 1: 15, UNLABELLED: 20}


def picture(root: Path, name: str, grey: int) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (3, 2), grey).save(root / name)


@pytest.fixture
def images_root(tmp_path: Path) -> Path:
    """An empty folder."""
    root = tmp_path / "images"
    root.mkdir()
    return root


@pytest.mark.parametrize(
    ("classes", "unknown"),
    [
        ("", "unlabelled"),
        ("train/", "unlabelled"),
        ("train/", "train/unlabelled"),
    ],
)
def test_a_folder_of_images_without_a_class(images_root: Path, classes: str, unknown: str) -> None:
    for number in range(20):
        picture(images_root, f"{classes}{'ab'[number % 2]}/{number:02}.png", number)
    for number in range(5):
        picture(images_root, f"{unknown}/deep/{number}.png", 100 + number)
    train, _, count, names, *_ = Folders(images_root).load()
    assert (count, names) == (2, ("a", "b"))
    assert train.labels.tolist() == [0] * 10 + [1] * 10 + [UNLABELLED] * 5
    pixels = train.inputs.index_select(0, torch.arange(25))[:, 0, 0, 0].tolist()
    assert pixels == [*range(0, 20, 2), *range(1, 20, 2), *range(100, 105)]
    assert train.ids is not None
    assert train.ids[20:].tolist() == [f"{unknown}/deep/{number}.png" for number in range(5)]
    assert train.ids[0] == f"{classes}a/00.png"
    data = ImageFolder(images_root, batch_size=19, workers=0)
    assert data.sizes() == {"train": 19, "labelled": 14, "val": 3, "test": 3}
    batch = next(iter(data.train_dataloader()))
    assert batch.mask is not None
    assert torch.equal(batch.mask, batch.index < 20)


def test_both_folders_of_unknown_images(images_root: Path) -> None:
    for name in ("train/a/1.png", "train/b/2.png", "train/unlabelled/3.png", "unlabelled/4.png"):
        picture(images_root, name, int(name[-5]))
    train = Folders(images_root).load().train
    assert train.labels.tolist() == [0, 1, UNLABELLED, UNLABELLED]
    assert sorted(train.inputs.index_select(0, torch.arange(4))[:, 0, 0, 0].tolist()) == [
        1,
        2,
        3,
        4,
    ]


def test_folders_of_unknown_images_that_make_no_sense(images_root: Path) -> None:
    for name in ("train/a/1.png", "train/b/2.png", "test/unlabelled/3.png"):
        picture(images_root, name, 0)
    with pytest.raises(UserError, match="unlabelled is no class of train/"):
        Folders(images_root).load()
    (images_root / "test" / "unlabelled").rename(images_root / "unlabelled")
    (images_root / "test" / "a").mkdir()
    picture(images_root, "test/a/3.png", 0)
    (images_root / "unlabelled" / "3.png").unlink()
    with pytest.raises(UserError, match=r"unlabelled: expected images, got none"):
        Folders(images_root).load()
