"""Data that was read, split and made ready to be served."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ensemble_kd.data.batches import Table
from ensemble_kd.data.pictures import Pictures
from ensemble_kd.data.source import IdArray, Parts
from ensemble_kd.data.splits import RowArray, Split
from ensemble_kd.data.stored_splits import StoredSplit
from ensemble_kd.data.tables import Scaling
from ensemble_kd.data.texts import Texts
from ensemble_kd.errors import UserError
from ensemble_kd.files import write_json, write_whole

Identities = tuple[IdArray, RowArray]
"""The ids by which the user knows all samples, (n,), and the numbers (n,) of ``Batch.index``."""


@dataclass(frozen=True)
class Opened:
    """Data once it was read and split.

    Attributes:
        parts: what the source holds, texts as ``Texts`` and classes of words as those of tokens.
        rows: of the training part, by split.
        labelled: rows of the training split whose label may be used.
        taught: rows of ``hidden`` to learn from, made-up samples among them.
        known: the training part with all its labels.
        hidden: the training part and what was made up, with the labels that may be used.
        val: a table and the rows of it that make up the validation split.
        test: likewise for test.
        scaling: None for texts.
        tokenizer: a ``tokenizers.Tokenizer``; None for what is no text.
        stored: where ``rows`` are kept.
    """

    parts: Parts
    rows: Split
    labelled: RowArray
    taught: Tensor
    known: Table
    hidden: Table
    val: tuple[Table, Tensor]
    test: tuple[Table, Tensor]
    scaling: Scaling | None
    tokenizer: Any
    stored: StoredSplit

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes: their own, or their numbers."""
        return self.parts.names or tuple(map(str, range(self.parts.classes)))

    @property
    def made(self) -> int:
        """How many samples were made up."""
        return len(self.hidden) - len(self.known)

    def accompany(self, folder: Path) -> None:
        """Write beside a delivered network what its inputs are made with.

        For texts that is ``tokenizer.json``, padding and truncation included. For a table it is
        ``inputs.json``: for each input the column from which it is made and how, and the mean and
        the standard deviation that standardise it. For all else it is nothing.

        Args:
            folder: where the network lies.

        Raises:
            UserError: it cannot be written.
        """
        if self.tokenizer is not None:
            write_whole(folder / "tokenizer.json", self.tokenizer.to_str(pretty=True) + "\n")
        if self.parts.columns and self.scaling is not None:
            shape = (len(self.parts.columns),)
            mean, std = (np.broadcast_to(each, shape).tolist() for each in self.scaling)
            columns = [
                {**column, "mean": own_mean, "std": own_std}
                for column, own_mean, own_std in zip(self.parts.columns, mean, std, strict=True)
            ]
            write_json(folder / "inputs.json", {"classes": list(self.names), "inputs": columns})

    def identities(self) -> Identities:
        """All samples of the source; those without ids are known by their numbers.

        Raises:
            UserError: some samples were made up, and nobody has ids for them, some parts have ids
                and others none, or an id occurs in two parts.
        """
        if self.made:
            raise UserError(
                f"data.synthesise: {self.made} made-up samples have no ids, so nobody can have "
                "recorded what to say of them; set it to null, or use teachers that can be asked"
            )
        parts = (self.parts.train, self.parts.val, self.parts.test)
        first = 0
        ids, numbers = [], []
        for samples in (part for part in parts if part is not None):
            own = np.arange(first, first + len(samples.labels))
            ids.append(own if samples.ids is None else samples.ids)
            numbers.append(own)
            first += len(own)
        if len({part.ids is None for part in parts if part is not None}) > 1:
            raise UserError("data: expected ids in all parts or in none, got them in some")
        if len({each.dtype.kind for each in ids}) > 1:
            ids = [each.astype(str) for each in ids]
        every = np.concatenate(ids)
        found, counts = np.unique(every, return_counts=True)
        if len(found) < len(every):
            twice = found[counts > 1][0].item()
            raise UserError(
                f"data.source: ids must differ in all parts together, got {twice!r} in two of them"
            )
        return every, np.concatenate(numbers)

    def digest(self, settings: tuple[Any, ...]) -> str:
        """SHA-256 of all arrays, of the splits and of settings that are said by their ``repr``."""
        said = hashlib.sha256(repr(settings).encode())
        arrays: list[npt.NDArray[np.generic] | Pictures | Texts] = []
        for samples in (self.parts.train, self.parts.test, self.parts.val):
            # Ids count where there are any: recorded answers are found by them.
            arrays.extend(each for each in samples or () if each is not None)
        if self.made and isinstance(self.hidden.inputs, Texts):
            arrays.append(self.hidden.inputs)  # they may depend on more than settings say
        for array in [*arrays, *self.rows, self.labelled]:
            if isinstance(array, Pictures | Texts):
                said.update(array.digest.encode())
                continue
            said.update(f"{array.dtype.str} {array.shape}".encode())
            said.update(np.ascontiguousarray(array).data)
        return said.hexdigest()
