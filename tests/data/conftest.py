"""A source made by a test, and where the real data sets may lie."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from ensemble_kd.data import Parts, Samples, written
from ensemble_kd.types import UNLABELLED


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


@pytest.fixture
def real_root() -> Path:
    """The folder of the real data sets; the test is skipped where there is none."""
    beside = Path(__file__).parents[3] / "shared" / "data"
    root = Path(os.environ.get("ENSEMBLE_KD_DATA", beside))
    if not (root / "fashion_mnist").is_dir() or not (root / "cifar100").is_dir():
        pytest.skip(f"no real data sets in {root}; set ENSEMBLE_KD_DATA")
    return root


@pytest.fixture
def real_texts() -> Path:
    """The folder of the real texts; the test is skipped where there is none."""
    beside = Path(__file__).parents[3] / "shared" / "data"
    root = Path(os.environ.get("ENSEMBLE_KD_DATA", beside))
    if not (root / "sst2").is_dir() or not (root / "wnut17").is_dir():
        pytest.skip(f"no real texts in {root}; set ENSEMBLE_KD_DATA")
    return root


Pixels = npt.NDArray[np.uint8]


@pytest.fixture
def write_images() -> Callable[..., tuple[Pixels, list[int]]]:
    """Writes PNG files, so many of each class; their pixels and labels in the order of paths."""

    def write(root: Path, counts: dict[str, int], seed: int = 0) -> tuple[Pixels, list[int]]:
        rng = np.random.default_rng(seed)
        pixels, labels = [], []
        for label, (name, count) in enumerate(sorted(counts.items())):
            (root / name).mkdir(parents=True)
            for number in range(count):
                image = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
                Image.fromarray(image).save(root / name / f"{number:03}.png")
                pixels.append(image.transpose(2, 0, 1))
                labels.append(label)
        return np.stack(pixels), labels

    return write


@pytest.fixture
def images(tmp_path: Path, write_images: Callable[..., object]) -> Path:
    """120 images of three classes in one part."""
    write_images(tmp_path / "images", {"cat": 60, "dog": 30, "owl": 30})
    return tmp_path / "images"


WORDS = ("good", "bad", "film", "plot", "actor", "scene", "a", "the", "was", "of", "wonder", "ful")


def sentences(count: int, seed: int = 0, most: int = 9) -> list[str]:
    """Texts of up to so many words, all of them different."""
    rng = np.random.default_rng(seed)
    return [
        f"{' '.join(rng.choice(WORDS, int(rng.integers(1, most))))} {number}"
        for number in range(count)
    ]


@pytest.fixture
def texts() -> Callable[..., list[str]]:
    """Makes texts: how many, seed, the most words of each."""
    return sentences


class Said:
    """A source of texts that the test wrote itself: one, pairs, or words with a class each."""

    mean = std = None

    def __init__(self, count: int = 60, pairs: bool = False, val: int = 0, test: int = 0) -> None:
        self.pairs = pairs
        self.parts = {"train": count, "val": val, "test": test}

    def samples(self, part: str) -> Samples | None:
        count = self.parts[part]
        if not count:
            return None
        seed = list(self.parts).index(part)
        columns = [sentences(count, 2 * seed + number) for number in range(1 + self.pairs)]
        return Samples(written(list(zip(*columns, strict=True)), part), np.arange(count) % 3)

    def load(self) -> Parts:
        train = self.samples("train")
        assert train is not None
        return Parts(train, self.samples("test"), 3, ("low", "mid", "high"), self.samples("val"))


class Tagged(Said):
    """The words of texts, each with the class that is its length modulo 4."""

    def samples(self, part: str) -> Samples | None:
        found = super().samples(part)
        if found is None:
            return None
        split = [text.split() for (text,) in found.inputs.texts]
        labels = np.full((len(split), max(map(len, split))), UNLABELLED)
        for row, words in enumerate(split):
            labels[row, : len(words)] = [len(word) % 4 for word in words]
        return Samples(written(split, part, words=True), labels)

    def load(self) -> Parts:
        return super().load()._replace(classes=4, names=("O", "B-x", "I-x", "B-y"))


@pytest.fixture
def said() -> Callable[..., Said]:
    """A factory of sources of texts: how many, of pairs or not, official parts."""
    return Said


@pytest.fixture
def tagged() -> Callable[..., Tagged]:
    """A factory of sources of texts in words, each with a class."""
    return Tagged
