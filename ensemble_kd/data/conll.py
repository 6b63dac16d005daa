"""Words with a class each, a line for each of them, as the conferences CoNLL hand them out."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ensemble_kd.data.labels import bio, checked_names
from ensemble_kd.data.source import Parts, Samples, existing
from ensemble_kd.data.splits import LabelArray
from ensemble_kd.data.written import written
from ensemble_kd.errors import UserError, nearest
from ensemble_kd.types import UNLABELLED

REMEDY = "set data.source.path to a file of lines WORD<TAB>TAG, with an empty line between texts"

DOCUMENT = "-DOCSTART-"
"""What stands for a word where a document begins, in the files of 2003; such lines are no text."""


class Sentence(NamedTuple):
    """The words of a text and their tags; None where a text has none."""

    words: list[str]
    tags: list[str] | None


class Conll:
    """Texts in words, of which each has a class: lines ``WORD<TAB>TAG``, empty lines between texts.

    Of more than two columns, the first is the word and the last the tag. Columns may be separated
    by blanks in a file without tabs. A text of the training part of which no line has a tag is
    unlabelled. Files are UTF-8, packed with gzip or not.

    Args:
        path: the training part.
        val_path: the validation part; None splits one off.
        test_path: the test part; None splits one off.
        names: of the tags, in their order; by default all of the training part, ``O`` first.
        limit: take that many texts of the training part only, the first ones.
        remedy: where the files come from, for the message that one of them is missing.

    Raises:
        ValueError: an argument is out of range.
    """

    mean = std = None

    def __init__(
        self,
        path: str | Path,
        val_path: str | Path | None = None,
        test_path: str | Path | None = None,
        names: Sequence[str] | None = None,
        limit: int | None = None,
        remedy: str = REMEDY,
    ) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"limit must be >= 1 or null for all texts, got {limit}")
        self.paths = {"train": path, "val": val_path, "test": test_path}
        self.names = checked_names(names)
        self.limit = limit
        self.remedy = remedy

    def load(self) -> Parts:
        """The words and tags of all files."""
        paths = {part: Path(p).expanduser() for part, p in self.paths.items() if p is not None}
        parts = {part: sentences(path, self.remedy) for part, path in paths.items()}
        parts["train"] = parts["train"][: self.limit]
        where = {part: str(path.absolute()) for part, path in paths.items()}
        tags = {tag for sentence in parts["train"] for tag in sentence.tags or ()}
        names = self.names or bio(tags)
        if len(names) < 2:
            got = ", ".join(names) or "none"
            raise UserError(f"{where['train']}: expected at least 2 different tags, got {got}")
        found = {
            part: tagged(texts, names, where[part], part == "train")
            for part, texts in parts.items()
        }
        return Parts(found["train"], found.get("test"), len(names), names, found.get("val"))


def sentences(path: Path, remedy: str) -> list[Sentence]:
    """The texts of a file.

    Raises:
        UserError: it is missing, empty, not UTF-8, or a line has no tag where others have.
    """
    existing(path, remedy)
    where = path.absolute()
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix.lower() == ".gz" else content).decode()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{where} cannot be unpacked: it is truncated or not gzip") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{where} is not UTF-8; convert it, for example with iconv -f latin1 -t utf-8"
        ) from error
    separator = "\t" if "\t" in text else None
    found: list[Sentence] = []
    words: list[str] = []
    tags: list[str] = []
    # Only at line feeds: what else ends lines elsewhere may be part of a word.
    for number, line in enumerate([*text.removeprefix("\ufeff").split("\n"), ""], 1):
        columns = [column.strip() for column in line.split(separator)]
        if not any(columns):
            if words:
                found.append(Sentence(words, tags or None))
            words, tags = [], []
            continue
        if columns[0] == DOCUMENT:
            continue
        untagged = len(columns) == 1 or not columns[-1]
        if not columns[0] or (words and untagged != (not tags)):
            raise UserError(
                f"{where}: expected WORD<TAB>TAG in line {number}, got {line.strip()[:60]!r}; in a "
                "text, either all words have a tag or none has"
            )
        words.append(columns[0])
        tags.extend([] if untagged else [columns[-1]])
    if not found:
        raise UserError(f"{where} holds no texts; {remedy}")
    return found


def tagged(texts: Sequence[Sentence], names: Sequence[str], where: str, partly: bool) -> Samples:
    """Texts in words and the classes of these, (n, w) with ``UNLABELLED`` behind the last.

    Args:
        texts: the words and their tags.
        names: of the tags.
        where: what the error message calls them.
        partly: whether texts may have no tags.

    Raises:
        UserError: a tag is unknown, there are more or fewer of them than words, or none at all.
    """
    numbers = {name: number for number, name in enumerate(names)}
    widest = max(len(sentence.words) for sentence in texts)
    labels: LabelArray = np.full((len(texts), widest), UNLABELLED, np.int64)
    for row, (words, tags) in enumerate(texts):
        if tags is None:
            if not partly:
                raise UserError(
                    f"{where}: expected tags, got none in text {row + 1}; only those of the "
                    "training part may be missing"
                )
            continue
        if len(tags) != len(words):
            raise UserError(
                f"{where}: expected a tag for each of {len(words)} words of text {row + 1}, got "
                f"{len(tags)}"
            )
        unknown = [tag for tag in tags if tag not in numbers]
        if unknown:
            known = nearest(unknown[0], names)
            raise UserError(
                f"{where}: tag {unknown[0]!r} of text {row + 1} is none of the training part's "
                f"{len(names)}{known}"
            )
        labels[row, : len(tags)] = [numbers[tag] for tag in tags]
    return Samples(written([sentence.words for sentence in texts], where, words=True), labels)
