"""Folders of images as a datamodule: the same batches as from arrays, whatever decodes them."""

from __future__ import annotations

import itertools
import json
import multiprocessing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image

from ensemble_kd.data import Arrays, Chain, Flip, ImageFolder, InMemory, Noise, Shift
from ensemble_kd.data.ahead import Ahead
from ensemble_kd.types import UNLABELLED, Batch

Pixels = npt.NDArray[np.uint8]
Write = Callable[..., tuple[Pixels, list[int]]]
SCALE: dict[str, Any] = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
VARIED = (Shift(1), Flip(), Noise(0.05))


@pytest.fixture
def arrays(tmp_path: Path, write_images: Write) -> Arrays:
    """The same pixels as an npz file."""
    x, y = write_images(tmp_path / "same", {"cat": 60, "dog": 30, "owl": 30})
    np.savez(tmp_path / "same.npz", x=x, y=y)
    return Arrays(tmp_path / "same.npz", **SCALE)


def same(first: Iterable[Batch], second: Iterable[Batch]) -> int:
    """Compare all batches to the last bit; how many there are."""
    count = 0
    for one, two in zip(first, second, strict=True):
        for name, mine, other in zip(Batch._fields, one, two, strict=True):
            parts = (mine, other) if name == "views" else ((mine,), (other,))
            for a, b in zip(*parts, strict=True):
                equal = torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
                assert equal, name
        count += 1
    return count


class Asked:
    """As much of a trainer as the data asks for."""

    def __init__(self, epoch: int = 0, rank: int = 0, world: int = 1, accumulated: int = 1) -> None:
        self.current_epoch = epoch
        self.global_rank = rank
        self.world_size = self.num_devices = world
        self.accumulate_grad_batches = accumulated
        self.strategy = self
        self.root_device = torch.device("cpu")


PLACES = (Asked(), Asked(3), Asked(1, 1, 2), Asked(2, accumulated=2))


@pytest.mark.parametrize("given", [{"workers": 0, "keep": "off"}, {"keep": "memory"}])
@pytest.mark.parametrize("settings", [{}, {"labelled": 12, "drop_last": False}, {"cycle": 2}])
def test_batches_are_those_of_the_arrays(
    images: Path, arrays: Arrays, given: dict[str, Any], settings: dict[str, Any]
) -> None:
    shared: dict[str, Any] = {"batch_size": 8, "seed": 3, "augment": VARIED, **settings}
    data = ImageFolder(images, **SCALE, **given, **shared)
    other = InMemory(arrays, **shared)
    assert data.inputs == other.inputs == (3, 6, 8)
    assert data.classes == 3
    assert data.names == ("cat", "dog", "owl")
    assert data.sizes() == other.sizes()
    for asked in PLACES:
        for each in (data, other):
            each.trainer = cast(pl.Trainer, asked)
            each.views = 2
        for name in ("train_dataloader", "val_dataloader", "test_dataloader"):
            assert same(getattr(data, name)(), getattr(other, name)()) > 0
        data.labelled_only = other.labelled_only = True
        assert same(data.train_dataloader(), other.train_dataloader()) > 0
        data.labelled_only = other.labelled_only = False


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(images: Path, workers: int) -> None:
    shared: dict[str, Any] = {"batch_size": 8, "labelled": 12, "augment": VARIED, "keep": "off"}
    data = ImageFolder(images, workers=workers, **shared)
    alone = ImageFolder(images, workers=0, **shared)
    assert data.digest == alone.digest
    asked = Asked()
    data.trainer = alone.trainer = cast(pl.Trainer, asked)
    loader, other = data.train_dataloader(), alone.train_dataloader()
    assert isinstance(loader.fetch, Ahead)
    assert loader.fetch.workers == workers
    for asked.current_epoch in range(2):
        assert same(loader, other) == len(loader) == 10
    assert same(data.val_dataloader(), alone.val_dataloader()) == 3


def test_workers_end_with_the_stage_that_they_served(images: Path) -> None:
    """Also where the loader lives on, as those of a trainer that is done."""
    data = ImageFolder(images, batch_size=8, workers=1, keep="off", cycle=1)
    loader = data.train_dataloader()
    recurring = data.recurring()
    assert recurring is not None
    assert len(list(loader)) == 10
    assert len(list(recurring.batches(recurring.chunks(8), 8))) == 11
    assert len(multiprocessing.active_children()) == 2
    data.teardown("fit")
    assert multiprocessing.active_children() == []
    assert len(list(itertools.islice(loader, 2))) == 2  # others are started
    data.teardown("fit")
    assert multiprocessing.active_children() == []


def test_workers_that_start_by_themselves(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def started(cores: int, world: int = 1, **arguments: Any) -> int:
        monkeypatch.setattr("ensemble_kd.data.image_folder._cores", lambda: cores)
        data = ImageFolder(images, **arguments)
        data.trainer = cast(pl.Trainer, Asked(world=world)) if world > 1 else None
        fetch = data.train_dataloader().fetch
        return fetch.workers if isinstance(fetch, Ahead) else 0

    off: dict[str, Any] = {"keep": "off"}
    assert [started(cores, **off) for cores in (1, 2, 6, 64)] == [0, 1, 5, 8]
    assert [started(cores, 2, **off) for cores in (2, 6, 64)] == [0, 2, 8]
    assert started(1, workers=3, **off) == 3
    assert started(6, workers=3, keep="memory") == 0


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_pinned_where_a_graphics_card_trains(images: Path, device: str) -> None:
    data = ImageFolder(images, workers=1, keep="off")
    asked = Asked()
    asked.root_device = torch.device(device)
    data.trainer = cast(pl.Trainer, asked)
    fetch = data.train_dataloader().fetch
    assert isinstance(fetch, Ahead)
    assert fetch.pinned is (device == "cuda")


def test_labelled(images: Path) -> None:
    data = ImageFolder(images, batch_size=84, labelled=12, workers=0)
    (batch,) = data.train_dataloader()
    assert batch.mask is not None
    assert np.bincount(batch.target[batch.mask].numpy()).tolist() == [6, 3, 3]
    assert batch.target[~batch.mask].unique().tolist() == [UNLABELLED]


def test_parts_of_the_users_own(tmp_path: Path, write_images: Write) -> None:
    root = tmp_path / "images"
    held = {
        part: write_images(root / part, dict.fromkeys(("a", "b"), count), count)
        for part, count in (("train", 10), ("val", 4), ("test", 3))
    }
    data = ImageFolder(root, batch_size=5, workers=0, mean=0.0, std=1.0)
    assert data.sizes() == {"train": 20, "labelled": 20, "val": 8, "test": 6}
    for (part, (pixels, labels)), first in zip(held.items(), (0, 20, 28), strict=True):
        seen: list[int] = []
        for batch in getattr(data, f"{part}_dataloader")():
            rows = batch.index.numpy() - first
            assert np.array_equal(batch.inputs.numpy(), pixels[rows].astype(np.float32) * (1 / 255))
            assert batch.target.tolist() == [labels[row] for row in rows]
            seen.extend(rows.tolist())
        assert sorted(seen) == list(range(len(labels)))
    whole = data.digest
    (root / "test").rename(tmp_path / "elsewhere")
    fewer = ImageFolder(root, batch_size=5, test_share=0.2)
    assert fewer.sizes() == {"train": 16, "labelled": 16, "val": 8, "test": 4}
    second = fewer.digest
    (root / "val").rename(root / "test")
    swapped = ImageFolder(root, batch_size=5, val_share=0.2)
    assert swapped.sizes() == {"train": 16, "labelled": 16, "val": 4, "test": 8}
    assert len({whole, second, swapped.digest}) == 3


def test_digest_knows_each_determinant(images: Path) -> None:
    def digest(**arguments: Any) -> str:
        return ImageFolder(images, **{"workers": 0, "labelled": 12, **arguments}).digest

    changed = [
        digest(),
        digest(seed=1),
        digest(batch_size=32),
        digest(labelled=None),
        digest(size=[4, 4]),
        digest(channels=1),
        digest(mean=0.5),
        digest(std=0.5),
        digest(augment=Flip()),
        digest(cycle=2),
        digest(drop_last=False),
        digest(val_share=0.3),
    ]
    assert len(set(changed)) == len(changed)
    same_as_first = [
        digest(keep="off"),
        digest(keep="memory"),
        digest(workers=2),
        digest(labelled_only=True, views=2),
    ]
    assert set(same_as_first) == {changed[0]}
    moved = images.rename(images.with_name("moved"))
    assert ImageFolder(moved, labelled=12).digest == changed[0]
    first = next((moved / "cat").iterdir())
    Image.new("RGB", (8, 6)).save(first)
    repainted = ImageFolder(moved, labelled=12).digest
    first.rename(first.with_name("renamed.png"))
    assert len({changed[0], repainted, ImageFolder(moved, labelled=12).digest}) == 3


@pytest.mark.parametrize("keep", ["off", "memory"])
def test_inputs_that_recur(images: Path, arrays: Arrays, keep: Any) -> None:
    shared: dict[str, Any] = {"batch_size": 8, "augment": VARIED}
    assert ImageFolder(images, **shared).recurring() is None
    data = ImageFolder(images, **SCALE, **shared, cycle=2, keep=keep)
    other = InMemory(arrays, **shared, cycle=2)
    mine, theirs = data.recurring(), other.recurring()
    assert mine is not None
    assert theirs is not None
    assert mine.views == 2
    assert torch.equal(mine.index, theirs.index)
    assert torch.equal(mine.inputs(mine.index[:5], 1), theirs.inputs(theirs.index[:5], 1))
    batch = next(iter(data.train_dataloader()))
    assert batch.view is not None
    assert torch.equal(batch.inputs, mine.inputs(batch.index, 0))
    for split in ("val", "test"):
        held_out, wanted = data.recurring(split), other.recurring(split)
        assert held_out is not None
        assert wanted is not None
        assert torch.equal(held_out.index, wanted.index)
        assert torch.equal(held_out.inputs(held_out.index, 0), wanted.inputs(wanted.index, 0))


def test_reading_happens_once_and_late(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = ImageFolder(images, augment=Chain(()))
    calls = []
    load = data.source.load

    def counted() -> Any:
        calls.append(1)
        return load()

    monkeypatch.setattr(data.source, "load", counted)
    assert calls == []
    data.setup("fit")
    data.setup("test")
    _ = (data.inputs, data.classes, data.digest, data.sizes(), data.train_dataloader())
    assert calls == [1]


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_a_run(images: Path, command: Callable[..., int]) -> None:
    """Small images from files through two networks, decoded by a worker."""
    said = command(
        "data=image_folder",
        f"data.path={images}",
        "data.size=[8,8]",
        "data.labelled=30",
        "data.workers=1",
        "data.keep=off",
        "data.cycle=1",
        "batch_size=16",
        "epochs=2",
        "teacher.epochs=1",
        "teacher.members=[cnn_tiny]",
        "controls=[]",
        "report.plots=false",
        "report.onnx=false",
        "hydra.run.dir=run",
    )
    assert said == 0
    results = json.loads(Path("run/results.json").read_text())
    assert results["schema"] == 2
    assert {"student", "teacher/0"} <= set(results["predictors"])
