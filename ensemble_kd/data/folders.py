"""Folders of images, one for each class, as a source."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from ensemble_kd.data.pictures import Pictures, endings
from ensemble_kd.data.source import Parts, Samples, Scale
from ensemble_kd.errors import UserError
from ensemble_kd.types import UNLABELLED

LAYOUT = "expected PATH/train/CLASS/*, with val/ and test/ beside train/ or not, or PATH/CLASS/*"
PARTS = ("train", "val", "test")
UNKNOWN = "unlabelled"
"""The folder of images whose class is not known."""

Keep = Literal["off", "auto", "memory"]

MEAN = {1: (0.5,), 3: (0.485, 0.456, 0.406)}
STD = {1: (0.5,), 3: (0.229, 0.224, 0.225)}
"""Of ImageNet for RGB, by channels: what most networks that were trained before expect."""


class _Found(NamedTuple):
    """The images of a part: their folder, their paths in it, ascending, and of which class; those
    without a class are last."""

    folder: Path
    names: list[str]
    classes: list[str | None]


class Folders:
    """``path/train/CLASS/*`` with or without ``val/`` and ``test/``, or ``path/CLASS/*``.

    Images may lie in folders in their class's folder. Hidden files and files whose ending is not
    that of an image are passed over. A folder ``unlabelled/``, beside ``train/`` or beside the
    classes of the training part, holds training images whose class is not known. The ids of images
    are their paths in the folder, with slashes.

    Args:
        path: the folder.
        size: height and width to which images are scaled and cropped; None leaves them alone, and
            they must be of one size.
        channels: 1 for grey, 3 for RGB; None for those of the first image.
        mean: subtracted from pixels in [0, 1]; None for that of ImageNet, or 0.5 for grey images.
        std: what they are divided by, likewise.
        keep: ``memory``: all images are decoded at once and kept; ``off``: each is decoded whenever
            it is read; ``auto``: they are kept if that takes at most ``limit`` bytes.
        limit: bytes, > 0.
    """

    def __init__(
        self,
        path: str | Path,
        size: Sequence[int] | None = None,
        channels: int | None = None,
        mean: Scale | None = None,
        std: Scale | None = None,
        keep: Keep = "auto",
        limit: float = 1e9,
    ) -> None:
        if size is not None and (len(size) != 2 or min(size) < 1):
            raise ValueError(f"size must be [height, width] in pixels, got {list(size)}")
        if channels not in (None, 1, 3):
            raise ValueError(f"channels must be 1, 3 or null for the first image's, got {channels}")
        if keep not in ("off", "auto", "memory"):
            raise ValueError(f"keep must be one of off, auto, memory, got {keep!r}")
        if not limit > 0:
            raise ValueError(f"limit must be a number of bytes > 0, got {limit}")
        self.path = Path(path).expanduser().absolute()
        self.size = None if size is None else (size[0], size[1])
        self.channels = channels
        self.keep = keep
        self.limit = limit
        self._mean = mean
        self._std = std

    @property
    def mean(self) -> Scale:
        """Subtracted from pixels in [0, 1]."""
        return MEAN[self._pictures["train"].shape[1]] if self._mean is None else self._mean

    @property
    def std(self) -> Scale:
        """What they are divided by afterwards."""
        return STD[self._pictures["train"].shape[1]] if self._std is None else self._std

    @property
    def kept(self) -> bool:
        """Whether the decoded images are in memory."""
        return all(pictures.kept for pictures in self._pictures.values())

    def load(self) -> Parts:
        """The images, which are decoded when they are read, and their labels."""
        found, classes = self._found
        numbers: dict[str | None, int] = {name: number for number, name in enumerate(classes)}
        numbers[None] = UNLABELLED
        parts = {}
        for part, pictures in self._pictures.items():
            labels = np.array([numbers[name] for name in found[part].classes], np.int64)
            folder = found[part].folder.relative_to(self.path)
            ids = np.array([(folder / name).as_posix() for name in found[part].names])
            parts[part] = Samples(pictures, labels, ids)
        return Parts(parts["train"], parts.get("test"), len(classes), classes, parts.get("val"))

    @cached_property
    def _found(self) -> tuple[dict[str, _Found], tuple[str, ...]]:
        """The images of each part that there is, and the classes."""
        if not self.path.is_dir():
            raise UserError(f"no folder {self.path}; set data.path: {LAYOUT}")
        inside = _folders(self.path)
        parts = [part for part in PARTS if part in inside]
        others = sorted(set(inside) - {*parts, UNKNOWN})
        if parts and (others or "train" not in parts):
            wrong = f"{others[0]}/ beside {parts[0]}/" if others else f"{parts[0]}/ without train/"
            raise UserError(f"{self.path}: {LAYOUT}, got {wrong}")
        roots = {part: self.path / part for part in parts} or {"train": self.path}
        classes = tuple(name for name in _folders(roots["train"]) if name != UNKNOWN)
        if len(classes) < 2:
            raise UserError(
                f"{roots['train']}: expected a folder for each of at least 2 classes, "
                f"got {', '.join(classes) or 'none'}; {LAYOUT}"
            )
        found = {part: _found(root, classes, part) for part, root in roots.items()}
        for root in sorted({self.path, roots["train"]}):
            if (root / UNKNOWN).is_dir():
                found["train"] = _with_unknown(found["train"], root)
        return found, classes

    @cached_property
    def _pictures(self) -> dict[str, Pictures]:
        """The images of each part, all of the shape of those of train."""
        found, _ = self._found
        train = Pictures(found["train"].folder, found["train"].names, self.channels, self.size)
        pictures = {"train": train}
        for part in [part for part in found if part != "train"]:
            folder, names, _ = found[part]
            pictures[part] = Pictures(folder, names, train.shape[1], self.size)
            if pictures[part].shape[1:] != train.shape[1:]:
                wanted, got = ("x".join(map(str, p.shape[2:])) for p in (train, pictures[part]))
                raise UserError(
                    f"{self.path}: images must have one size, or set data.size=[height,width] to "
                    f"scale them; those of train/ are {wanted}, those of {part}/ are {got} "
                    "(height x width)"
                )
        total = sum(math.prod(each.shape) for each in pictures.values())
        if self.keep == "memory" or (self.keep == "auto" and total <= self.limit):
            for each in pictures.values():
                each.keep()
        return pictures


def _folders(path: Path) -> list[str]:
    """Names of the folders in a folder, ascending, without hidden ones."""
    try:
        found = sorted(entry.name for entry in os.scandir(path) if entry.is_dir())
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    return [name for name in found if not name.startswith(".")]


def _found(root: Path, classes: Sequence[str], part: str) -> _Found:
    """The images of a part, in the order of their paths."""
    own = [name for name in _folders(root) if part != "train" or name != UNKNOWN]
    foreign = [name for name in own if name not in classes]
    if foreign:
        raise UserError(f"{root}: {foreign[0]} is no class of train/, expected {list(classes)}")
    loose = sorted(e.name for e in os.scandir(root) if not e.is_dir() and _is_image(e.name))
    if loose:
        raise UserError(f"{root / loose[0]}: expected images in a folder of their class")
    owned: list[tuple[str, str]] = []
    for name in own:
        images = list(_images(root, name))
        if not images and part == "train":
            raise UserError(f"{root / name}: expected images, got none; {LAYOUT}")
        owned.extend((image, name) for image in images)
    if not owned:
        raise UserError(f"{root}: expected images, got none; {LAYOUT}")
    owned.sort()
    return _Found(root, [image for image, _ in owned], [name for _, name in owned])


def _with_unknown(train: _Found, root: Path) -> _Found:
    """The training images and those in a folder of unknown ones, all by their paths in ``root`` or
    in the folder of the training part, whichever is outside."""
    folder = min(root, train.folder)
    names = [(train.folder / name).relative_to(folder).as_posix() for name in train.names]
    inside = root.relative_to(folder)
    unknown = sorted((inside / name).as_posix() for name in _images(root, UNKNOWN))
    if not unknown:
        raise UserError(f"{root / UNKNOWN}: expected images, got none")
    return _Found(folder, names + unknown, train.classes + [None] * len(unknown))


def _images(root: Path, name: str) -> Iterator[str]:
    """Paths in ``root``, with slashes, of the images of a class."""

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename} cannot be read ({error.strerror})") from error

    for folder, inner, files in os.walk(root / name, onerror=refuse, followlinks=True):
        inner[:] = [each for each in inner if not each.startswith(".")]
        place = Path(folder).relative_to(root)
        yield from ((place / file).as_posix() for file in files if _is_image(file))


def _is_image(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in endings()
