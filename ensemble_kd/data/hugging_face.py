"""Data sets of the library ``datasets``: from a folder, or from the Hugging Face hub."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ensemble_kd.data.columns import different
from ensemble_kd.data.conll import Sentence, tagged
from ensemble_kd.data.folders import MEAN, STD
from ensemble_kd.data.hugging_face_splits import (
    AUTO,
    Held,
    chosen,
    feature_of,
    label,
    label_names,
    opened,
    pixels,
    tags,
    texts,
    words,
)
from ensemble_kd.data.labels import bio, checked_names, class_names, class_numbers
from ensemble_kd.data.source import Parts, Samples, Scale
from ensemble_kd.data.written import written
from ensemble_kd.errors import UserError


class HuggingFace:
    """Images, texts or words with labels, from a data set as the library ``datasets`` reads it.

    A folder is one that ``save_to_disk`` wrote, or one with csv, json or parquet files, which
    ``load_dataset`` sorts into splits by their names. Labels are classes by the column's own names
    (``ClassLabel``), or else by their values. A label of -1 of such a class, -100, or none at all
    is not known, which is so in the training part only.

    Args:
        path: the folder, or the id of a data set on the hub, from which it is downloaded.
        label: the column of the labels; with ``tokens``, of the tags.
        image: the column of images; exactly one of this, ``text`` and ``tokens`` is needed.
        text: the column of texts, or the two of pairs.
        tokens: the column of lists of words, each of which has a tag.
        id: a column of ids, all different, by which recorded answers may name the samples.
        revision: the commit on the hub; needed there, and for nothing else.
        subset: the configuration, of data sets that have several.
        train: the split to train on.
        val: the split to validate on; None splits one off; ``auto`` takes the one that is called
            so, if there is one and any of its labels is known.
        test: the split to test on, likewise.
        size: height and width to which images are scaled and cropped; None where all are of one.
        channels: 1 for grey, 3 for RGB; None for those of the first image.
        mean: subtracted from pixels in [0, 1]; None for that of ImageNet, or 0.5 for grey images.
        std: what they are divided by, likewise.
        names: of the classes, in their order; None for those of the data set.
        limit: take that many samples of the training part only, the first ones.
        cache: folder in which the library keeps what it has read; None for its own.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        path: str | Path,
        label: str = "label",
        image: str | None = None,
        text: Sequence[str] | None = None,
        tokens: str | None = None,
        id: str | None = None,
        revision: str | None = None,
        subset: str | None = None,
        train: str = "train",
        val: str | None = AUTO,
        test: str | None = AUTO,
        size: Sequence[int] | None = None,
        channels: int | None = None,
        mean: Scale | None = None,
        std: Scale | None = None,
        names: Sequence[str] | None = None,
        limit: int | None = None,
        cache: str | Path | None = None,
    ) -> None:
        given = [name for name in (image, text, tokens) if name is not None]
        if len(given) != 1:
            raise ValueError(
                "exactly one of image, text and tokens must name columns, got "
                f"image={image}, text={text}, tokens={tokens}"
            )
        if text is not None and len(text) not in (1, 2):
            raise ValueError(f"text must be one column or the two of pairs, got {list(text)}")
        if size is not None and (len(size) != 2 or min(size) < 1):
            raise ValueError(f"size must be [height, width] in pixels, got {list(size)}")
        if channels not in (None, 1, 3):
            raise ValueError(f"channels must be 1, 3 or null for the first image's, got {channels}")
        self.path = str(path)
        self.label = label
        self.image = image
        self.text = text
        self.tokens = tokens
        self.id = id
        self.revision = revision
        self.subset = subset
        self.splits = {"train": train, "val": val, "test": test}
        self.channels = channels
        self.size = None if size is None else (size[0], size[1])
        self.names = checked_names(names)
        self.limit = limit
        self.cache = cache
        self._mean = mean
        self._std = std

    @property
    def mean(self) -> Scale | None:
        """Subtracted from pixels in [0, 1]; None for texts."""
        if self.image is None or self._mean is not None:
            return self._mean
        return MEAN[self._images["train"].shape[1]]

    @property
    def std(self) -> Scale | None:
        """What they are divided by afterwards; None for texts."""
        if self.image is None or self._std is not None:
            return self._std
        return STD[self._images["train"].shape[1]]

    def load(self) -> Parts:
        """The samples of all splits that are used."""
        said = {part: self._labels(held) for part, held in self._held.items()}
        names = self._class_names(said["train"])
        parts = {}
        for part, held in self._held.items():
            ids = None if self.id is None else different(self._ids(held), held.where)
            partly = part == "train"
            if self.tokens is None:
                labels = class_numbers(
                    said[part], names, held.where, partly, ordered=self.names is not None
                )
                found = Samples(self._inputs(part), labels)
            else:
                lists = zip(words(held, self.tokens), said[part], strict=True)
                found = tagged([Sentence(*each) for each in lists], names, held.where, partly)
            parts[part] = found._replace(ids=ids)
        return Parts(parts["train"], parts.get("test"), len(names), names, parts.get("val"))

    @cached_property
    def _held(self) -> dict[str, Held]:
        """The splits that are used, by part."""
        found = opened(self.path, self.subset, self.revision, self.cache)
        splits = chosen(found, self.splits, self.path)
        if self.limit is not None:
            rows, where = splits["train"]
            if not 1 <= self.limit <= len(rows):
                raise UserError(
                    f"{where}: limit must be between 1 and {len(rows)}, got {self.limit}"
                )
            splits["train"] = Held(rows.select(range(self.limit)), where)
        for part in [part for part in splits if self.splits[part] == AUTO]:
            # So are the test parts of competitions, such as those of GLUE.
            if all(said is None for said in self._labels(splits[part])):
                where = splits.pop(part).where
                print(
                    f"data: {where} is left out, since none of its labels is known", file=sys.stderr
                )
        return splits

    @cached_property
    def _images(self) -> dict[str, npt.NDArray[np.uint8]]:
        """The images of each part, all of the shape of those of the training part."""
        channels, size = self.channels, self.size
        found = {}
        for part, held in self._held.items():
            found[part] = pixels(held, str(self.image), channels, size)
            channels = found[part].shape[1]
            if found[part].shape[1:] != found["train"].shape[1:]:
                wanted, got = ("x".join(map(str, found[p].shape[2:])) for p in ("train", part))
                raise UserError(
                    f"{held.where}: images must be as those of the training part, {wanted}, got "
                    f"{got} (height x width); set data.source.size=[height,width]"
                )
        return found

    def _inputs(self, part: str) -> Any:
        if self.image is not None:
            return self._images[part]
        held = self._held[part]
        columns = [texts(held, name) for name in self.text or ()]
        return written(list(zip(*columns, strict=True)), held.where)

    def _labels(self, held: Held) -> list[Any]:
        """Of each row its label by name, or the list of its tags; None where it is not known."""
        kind, values = feature_of(held, self.label, "data.source.label")
        names = label_names(kind if self.tokens is None else getattr(kind, "feature", None))
        if names is not None and self.names is not None:
            if len(self.names) != len(names):
                raise UserError(
                    f"data.source.names: expected {len(names)}, one for each class of "
                    f"{held.where}, got {len(self.names)}"
                )
            names = self.names
        if self.tokens is None:
            return [label(value, names, held.where) for value in values]
        return [tags(value, names, held.where) for value in values]

    def _class_names(self, said: list[Any]) -> tuple[str, ...]:
        """Those that were given, those of the data set, or all that there are."""
        train = self._held["train"]
        kind, _ = feature_of(train, self.label, "data.source.label")
        own = label_names(kind if self.tokens is None else getattr(kind, "feature", None))
        given = self.names or own
        if self.tokens is None:
            return class_names(said, given, train.where)
        found = given or bio(tag for each in said for tag in each or ())
        if len(found) < 2:
            raise UserError(f"{train.where}: expected at least 2 different tags, got {len(found)}")
        return found

    def _ids(self, held: Held) -> list[str]:
        _, values = feature_of(held, str(self.id), "data.source.id")
        found = list(values)
        if any(value is None for value in found):
            raise UserError(f"{held.where}: column {self.id!r} has no id in some rows")
        return list(map(str, found))
