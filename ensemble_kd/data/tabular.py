"""Tables of numbers and categories with a class for each row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ensemble_kd.data.columns import File, column_of, identifiers, read_parts
from ensemble_kd.data.features import Encoding, Missing, feature
from ensemble_kd.data.labels import checked_names, class_names, class_numbers, labels_of
from ensemble_kd.data.source import Parts, Samples, Scale
from ensemble_kd.errors import UserError

REMEDY = "set data.source.path to a csv, tsv or parquet file with a column of labels"


class Tabular:
    """The rows of a csv, tsv or parquet file: a label, and features from the other columns.

    Files are read as ``columns.read`` says; a label is a name or a number, and where the cell is
    empty or -100, which it may be in the training part only, the label is not known. What becomes
    of the features is told by ``features.feature``: numbers stay numbers, all else is a category.
    Numbers and codes are standardised by the mean and the standard deviation of the training split;
    columns of zeros and ones that stand for a category are not.

    Args:
        path: the training part.
        label: the column of the labels.
        features: the columns to learn from, in this order; None takes all others.
        exclude: columns that are no features, where ``features`` is None.
        categorical: columns whose numbers are names, such as postcodes.
        id: a column of ids, all different, by which recorded answers may name the samples; it is no
            feature.
        encoding: of categories: ``onehot``, a column of zeros and ones for each value; or
            ``codes``, one column with the position of the value among all, sorted.
        missing: ``refuse`` empty cells, or put the ``mean`` of the training split there; of a
            category that is the share of each value, and with codes they are a value of their own.
        standardise: whether to standardise.
        names: of the classes, in their order; by default all labels of the training part, sorted.
        val_path: the validation part; None splits one off.
        test_path: the test part; None splits one off.
        limit: take that many rows of the training part only, the first ones.
        remedy: where the files come from, for the message that one of them is missing.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        path: str | Path,
        label: str = "label",
        features: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
        categorical: Sequence[str] = (),
        id: str | None = None,
        encoding: Encoding = "onehot",
        missing: Missing = "refuse",
        standardise: bool = True,
        names: Sequence[str] | None = None,
        val_path: str | Path | None = None,
        test_path: str | Path | None = None,
        limit: int | None = None,
        remedy: str = REMEDY,
    ) -> None:
        if features is not None and (not features or label in features or exclude):
            raise ValueError(
                f"features must be columns beside the label {label!r}, without exclude, or null "
                f"for all others, got {list(features)}"
            )
        self.paths = {"train": path, "val": val_path, "test": test_path}
        self.label = label
        self.features = features
        self.exclude = tuple(exclude)
        self.categorical = tuple(categorical)
        self.id = id
        self.encoding = encoding
        self.missing = missing
        self.names = checked_names(names)
        self.limit = limit
        self.remedy = remedy
        self.mean: Scale | None = None if standardise else 0.0
        self.std: Scale | None = None if standardise else 1.0

    def load(self) -> Parts:
        """The rows of all files."""
        files = read_parts(self.paths, self.remedy, self.limit)
        columns = [
            feature(files, name, name in self.categorical, self.encoding, self.missing)
            for name in self._chosen(files["train"])
        ]
        labels = {part: labels_of(file, self.label) for part, file in files.items()}
        names = class_names(labels["train"], self.names, files["train"].where)
        parts = {}
        for part, file in files.items():
            inputs = np.concatenate([column.values[part] for column in columns], axis=1)
            numbers = class_numbers(
                *(labels[part], names, file.where),
                partly=part == "train",
                ordered=self.names is not None,
            )
            ids = None if self.id is None else identifiers(file, self.id)
            parts[part] = Samples(inputs, numbers, ids)
        described = [each for column in columns for each in column.described]
        return Parts(
            *(parts["train"], parts.get("test"), len(names), names, parts.get("val")),
            unscaled=[number for number, each in enumerate(described) if "is" in each],
            columns=described,
        )

    def _chosen(self, train: File) -> list[str]:
        """The columns to learn from."""
        names = list(train.table.column_names)
        for key, said in (("exclude", self.exclude), ("categorical", self.categorical)):
            for name in said:
                column_of(train, name, f"data.source.{key}")
        found = names if self.features is None else list(self.features)
        others = {self.label, self.id, *self.exclude}
        found = [name for name in found if name not in others]
        if not found:
            raise UserError(
                f"{train.where}: expected columns to learn from, got only {', '.join(names)}"
            )
        if "" in found:
            raise UserError(
                f"{train.where}: column {names.index('') + 1} has no name; row numbers that pandas "
                "wrote are left out by to_csv(index=False)"
            )
        return found
