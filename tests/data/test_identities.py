"""Numbers of samples, which are unique in a data set, and the ids by which a user knows them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ensemble_kd.data import ImageFolder, InMemory, Munge, Parts, Samples
from ensemble_kd.errors import UserError

Make = Callable[..., Any]


class Official:
    """A source with parts of its own."""

    mean, std = 0.0, 1.0

    def __init__(self, train: int = 40, val: int = 0, test: int = 0, ids: Any = None) -> None:
        self.counts = {"train": train, "val": val, "test": test}
        self.ids = ids or {}

    def samples(self, part: str) -> Samples | None:
        count = self.counts[part]
        if not count:
            return None
        first = sum(list(self.counts.values())[: list(self.counts).index(part)])
        inputs = np.arange(first, first + count, dtype=np.float32)[:, None]
        return Samples(inputs, np.arange(count) % 2, self.ids.get(part))

    def load(self) -> Parts:
        train = self.samples("train")
        assert train is not None
        return Parts(train, self.samples("test"), 2, (), self.samples("val"))


def numbers(data: InMemory) -> dict[str, list[int]]:
    loaders = {
        "train": data.train_dataloader(),
        "val": data.val_dataloader(),
        "test": data.test_dataloader(),
    }
    return {
        part: sorted(number for batch in loader for number in batch.index.tolist())
        for part, loader in loaders.items()
    }


@pytest.mark.parametrize(("val", "test"), [(0, 0), (7, 0), (0, 9), (7, 9)])
@pytest.mark.parametrize("made", [0, 2])
def test_numbers_are_unique_in_all_parts(val: int, test: int, made: int) -> None:
    synthesise = Munge(made) if made else None
    data = InMemory(Official(40, val, test), 4, synthesise=synthesise, drop_last=False)
    found = numbers(data)
    flat = [number for part in found.values() for number in part]
    extra = made * data.sizes()["train"]
    assert sorted(flat) == list(range(40 + extra + val + test))
    if val:
        assert found["val"] == list(range(40 + extra, 40 + extra + val))
    if test:
        assert found["test"] == list(range(40 + extra + val, 40 + extra + val + test))
    for split in ("val", "test"):
        recurring = data.recurring(split)
        assert recurring is not None
        assert recurring.index.tolist() == found[split]
        for batch in recurring.batches(recurring.chunks(4), 4):
            again = recurring.inputs(batch.index, 0)
            assert torch.equal(again, batch.inputs)
            if not made:  # the value of a sample is its number
                assert batch.index.tolist() == batch.inputs.flatten().tolist()


def test_samples_without_ids_are_known_by_number() -> None:
    ids, found = InMemory(Official(40, 7, 9)).identities()
    assert ids.dtype == found.dtype == np.int64
    assert ids.tolist() == found.tolist() == list(range(56))


def test_samples_by_their_ids() -> None:
    given = {
        "train": np.array([f"a{number}" for number in range(40)]),
        "test": np.array([f"longer {number}" for number in range(9)]),
    }
    data = InMemory(Official(40, 0, 9, given))
    ids, found = data.identities()
    assert found.tolist() == list(range(49))
    assert ids.tolist() == [*given["train"].tolist(), *given["test"].tolist()]
    assert data.digest != InMemory(Official(40, 0, 9)).digest
    other = InMemory(Official(40, 0, 9, {**given, "train": given["train"][::-1]}))
    assert other.digest != data.digest


def test_ids_of_two_kinds_are_text() -> None:
    data = InMemory(Official(40, 0, 4, {"train": np.arange(40), "test": np.array(list("abcd"))}))
    ids, _ = data.identities()
    assert ids.tolist() == [*map(str, range(40)), *"abcd"]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ({"train": np.arange(40), "test": np.arange(5) + 39}, "got 39 in two of them"),
        ({"train": np.array([f"a{k}" for k in range(40)])}, "got them in some"),
        (
            {"train": np.array([f"a{k}" for k in range(40)]), "test": np.array(["a7", *"bcde"])},
            "got 'a7' in two of them",
        ),
    ],
)
def test_ids_that_tell_no_samples_apart(ids: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        InMemory(Official(40, 0, 5, ids)).identities()
    assert "\n" not in str(raised.value)


def test_made_up_samples_have_no_ids() -> None:
    with pytest.raises(UserError, match=r"data\.synthesise: 28 made-up samples have no ids"):
        InMemory(Official(40), synthesise=Munge()).identities()


def test_images_are_known_by_their_paths(tmp_path: Path, write_images: Make) -> None:
    root = tmp_path / "images"
    for part, count in (("train", 4), ("test", 2)):
        write_images(root / part, {"cat": count, "dog": count}, count)
    ids, found = ImageFolder(root, workers=0, val_share=0.3).identities()
    assert found.tolist() == list(range(12))
    assert ids[:2].tolist() == ["train/cat/000.png", "train/cat/001.png"]
    assert ids[8:].tolist() == [f"test/{c}/{k:03}.png" for c in ("cat", "dog") for k in range(2)]
    write_images(tmp_path / "flat", {"cat": 4, "dog": 4})
    ids, _ = ImageFolder(tmp_path / "flat", workers=0).identities()
    assert ids[4] == "dog/000.png"
