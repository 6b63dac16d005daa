"""Texts with a class each, from a csv, tsv or parquet file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ensemble_kd.data.columns import cells, identifiers, read_parts
from ensemble_kd.data.labels import checked_names, class_names, class_numbers, labels_of
from ensemble_kd.data.source import Parts, Samples
from ensemble_kd.data.written import written

REMEDY = "set data.source.path to a csv, tsv or parquet file with a column of texts and of labels"


class TextTable:
    """Texts, or pairs of texts, in one column or two, and their labels in another.

    Files are read as ``columns.read`` says. A label is a name or a number; where the cell is empty
    or -100, which it may be in the training part only, the label is not known.

    Args:
        path: the training part.
        text: the column of the texts, or the two of pairs.
        label: the column of the labels.
        id: a column of ids, all different, by which recorded answers may name the samples.
        val_path: the validation part; None splits one off.
        test_path: the test part; None splits one off.
        names: of the classes, in their order; by default all labels of the training part, sorted.
        limit: take that many rows of the training part only, the first ones.
        remedy: where the files come from, for the message that one of them is missing.

    Raises:
        ValueError: an argument is out of range.
    """

    mean = std = None

    def __init__(
        self,
        path: str | Path,
        text: Sequence[str],
        label: str = "label",
        id: str | None = None,
        val_path: str | Path | None = None,
        test_path: str | Path | None = None,
        names: Sequence[str] | None = None,
        limit: int | None = None,
        remedy: str = REMEDY,
    ) -> None:
        if len(text) not in (1, 2):
            raise ValueError(f"text must be one column or the two of pairs, got {list(text)}")
        self.paths = {"train": path, "val": val_path, "test": test_path}
        self.text = tuple(text)
        self.label = label
        self.id = id
        self.names = checked_names(names)
        self.limit = limit
        self.remedy = remedy

    def load(self) -> Parts:
        """The texts and labels of all files."""
        files = read_parts(self.paths, self.remedy, self.limit)
        labels = {part: labels_of(file, self.label) for part, file in files.items()}
        names = class_names(labels["train"], self.names, files["train"].where)
        parts = {}
        for part, file in files.items():
            columns = [cells(file, name, "data.source.text") for name in self.text]
            # A cell without text is an empty text.
            texts = [tuple(cell or "" for cell in row) for row in zip(*columns, strict=True)]
            numbers = class_numbers(
                *(labels[part], names, file.where),
                partly=part == "train",
                ordered=self.names is not None,
            )
            ids = None if self.id is None else identifiers(file, self.id)
            parts[part] = Samples(written(texts, file.where), numbers, ids)
        return Parts(parts["train"], parts.get("test"), len(names), names, parts.get("val"))
