"""Reading data, splitting it, and making it ready to be served."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ensemble_kd.data.batches import Table
from ensemble_kd.data.counter import derive
from ensemble_kd.data.opened import Opened
from ensemble_kd.data.pictures import Pictures
from ensemble_kd.data.source import Parts, Samples, Source
from ensemble_kd.data.splits import RowArray, Split, drawn, strata
from ensemble_kd.data.stored_splits import StoredSplit
from ensemble_kd.data.synthesis import Synthesis
from ensemble_kd.data.tables import Scaling, but_for, extended, table_of
from ensemble_kd.data.texts import Texts, of_length
from ensemble_kd.data.tokenizing import Tokenizing
from ensemble_kd.data.written import Written
from ensemble_kd.errors import UserError
from ensemble_kd.types import UNLABELLED


@dataclass(frozen=True)
class Opening:
    """How data is opened; see ``InMemory`` for what the fields mean."""

    source: Source
    labelled: int | None
    seed: int
    val_share: float
    test_share: float
    synthesise: Synthesis | None = None
    tokenizer: Tokenizing | None = None
    length: int | None = None
    splits: Path | None = None

    def opened(self) -> Opened:
        """Read and split the data.

        Raises:
            UserError: it cannot be read or split.
        """
        parts = self.source.load()
        stored = self._split(parts)
        rows = stored.rows()
        chosen = self._chosen(parts, rows)
        scaling = None
        if not isinstance(parts.train.inputs, Written):
            parts, scaling = self._scaled(parts, rows)
        tokenizer = self._fitted(parts, rows)
        made = self._made(parts, rows, tokenizer)
        if tokenizer is not None:
            parts, made = _in_tokens(parts, made, tokenizer)
        known = table_of(parts.train, scaling)
        # The labels that are kept back are not even in the table that training reads.
        hidden = known if len(chosen) == len(rows.train) else but_for(known, chosen, scaling)
        taught = torch.from_numpy(rows.train)
        if made is not None:
            hidden = extended(hidden, made, scaling)
            taught = torch.cat([taught, torch.arange(len(known), len(hidden))])
        val = _held_out(parts.val, scaling, known, rows.val, len(hidden))
        behind = len(hidden) + (0 if parts.val is None else len(val[0]))
        test = _held_out(parts.test, scaling, known, rows.test, behind)
        return Opened(
            parts, rows, chosen, taught, known, hidden, val, test, scaling, tokenizer, stored
        )

    @property
    def _where(self) -> str:
        return f"data ({type(self.source).__name__})"

    def _split(self, parts: Parts) -> StoredSplit:
        val_share = self.val_share if parts.val is None else None
        test_share = self.test_share if parts.test is None else None
        labels, classes = strata(parts.train.labels, parts.classes)
        return StoredSplit(
            self.splits, labels, classes, val_share, test_share, self.seed, self._where
        )

    def _chosen(self, parts: Parts, rows: Split) -> RowArray:
        """The rows of the training split whose label may be used."""
        labels, _ = strata(parts.train.labels[rows.train], parts.classes)
        known = labels != UNLABELLED
        chosen: RowArray = rows.train[known]
        if self.labelled is None or self.labelled == len(chosen):
            return chosen
        seed = derive(self.seed, "labelled")
        places = drawn(labels[known], self.labelled, seed, where="data.labelled")
        kept: RowArray = chosen[places]
        return kept

    def _scaled(self, parts: Parts, rows: Split) -> tuple[Parts, Scaling]:
        """How inputs are standardised, and they themselves with means where there was nothing."""
        mean, std = self.source.mean, self.source.std
        inputs = parts.train.inputs
        table = isinstance(inputs, np.ndarray) and inputs.ndim == 2
        gaps = table and any(np.isnan(samples.inputs).any() for samples in parts.held().values())
        if mean is not None and std is not None and not gaps:
            return parts, Scaling(mean, std)
        if not table:
            raise UserError(f"{self._where}: mean and std must be numbers, got null")
        values = inputs[rows.train].astype(np.float64)
        empty = np.isnan(values).all(axis=0)
        if empty.any():
            raise UserError(
                f"{self._where}: column {int(empty.argmax())} has no value in the whole training "
                "split"
            )
        means, stds = np.nanmean(values, axis=0), np.nanstd(values, axis=0)
        filled = {part: _filled(samples, means) for part, samples in parts.held().items()}
        if mean is None or std is None:
            # A column that is constant, or that is to stay as it is, is divided by one.
            stds[stds <= 1e-9 * np.abs(means)] = 1.0
            means[list(parts.unscaled)], stds[list(parts.unscaled)] = 0.0, 1.0
            mean, std = tuple(means.tolist()), tuple(stds.tolist())
        return parts.holding(filled), Scaling(mean, std)

    def _fitted(self, parts: Parts, rows: Split) -> Any:
        """What makes the tokens of texts; None of what is no text."""
        if not isinstance(parts.train.inputs, Written):
            if self.tokenizer is not None:
                raise UserError("data.tokenizer: expected texts, got data without any")
            return None
        if self.tokenizer is None:
            raise UserError(
                "data.tokenizer: expected one, since the data holds texts, such as "
                "{_target_: ensemble_kd.data.WordPiece}"
            )
        learned = parts.train.inputs[rows.train]
        return of_length(self.tokenizer.fitted(learned), self.length, learned)

    def _made(self, parts: Parts, rows: Split, tokenizer: Any) -> Any:
        """Made-up samples: a tensor or texts as they are written; None where there are none."""
        if self.synthesise is None:
            return None
        inputs = parts.train.inputs
        if isinstance(inputs, Pictures):
            raise UserError("data.synthesise: expected a table of numbers, got files of images")
        rule = self.synthesise if tokenizer is None else self.synthesise.fitted(tokenizer)
        made = rule(inputs[rows.train], derive(self.seed, "synthesise"))
        return made if isinstance(made, Written) else torch.from_numpy(made)


def _in_tokens(parts: Parts, made: Written | None, tokenizer: Any) -> tuple[Parts, Texts | None]:
    """Texts as tokens, those of the parts and those that were made up."""
    found = {part: _tokens(samples, tokenizer) for part, samples in parts.held().items()}
    cut = sum(samples.inputs.cut for samples in found.values())
    if cut:
        total = sum(len(samples.labels) for samples in found.values())
        length = found["train"].inputs.shape[1]
        print(
            f"data: {cut} of {total} texts are longer than data.length={length} tokens and are cut",
            file=sys.stderr,
        )
    return parts.holding(found), None if made is None else Texts(made, tokenizer)


def _tokens(samples: Samples, tokenizer: Any) -> Samples:
    texts = Texts(samples.inputs, tokenizer)
    labels = texts.targets(samples.labels) if texts.written.words else samples.labels
    return samples._replace(inputs=texts, labels=labels)


def _filled(samples: Samples, means: npt.NDArray[np.float64]) -> Samples:
    inputs = samples.inputs
    return samples._replace(inputs=np.where(np.isnan(inputs), means, inputs).astype(np.float32))


def _held_out(
    samples: Samples | None, scaling: Scaling | None, known: Table, rows: RowArray, first: int
) -> tuple[Table, Tensor]:
    """A table and rows of it: of an official part, or those that were split off."""
    if samples is None:
        return known, torch.from_numpy(rows)
    return table_of(samples, scaling, first), torch.arange(len(samples.labels))
