"""How good the predictors of a run are, and how near to each other: one pass over a split."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import nn

from ensemble_kd.errors import UserError
from ensemble_kd.metrics import SpanF1, cut_texts
from ensemble_kd.predict import predict
from ensemble_kd.predictions import Predictions
from ensemble_kd.robustness import Robustness
from ensemble_kd.scores import Nearness, Scores, nearness, score
from ensemble_kd.teachers import Kept
from ensemble_kd.types import Batch


class Measured(NamedTuple):
    """What was measured on one split: scores by name, nearness by pair of names, and from what."""

    predictors: dict[str, Scores]
    pairs: dict[tuple[str, str], Nearness]
    predictions: Predictions


class Evaluation:
    """Measures predictors on classification data.

    Args:
        bins: number of bins of the calibration error, from 1 to 100,000.
        spans: also measure how well whole entities are found; see ``SpanF1``. Where texts were cut,
            a line on stderr says how many: entities in what was cut off do not count.
        robustness: how samples are spoilt, to see what becomes of the accuracy; None: not at all.
        keep: predictions of a split are kept in the run folder as long as they take no more than
            so many megabytes.
    """

    def __init__(
        self,
        bins: int = 15,
        spans: bool = False,
        robustness: Robustness | None = None,
        keep: float = 1000,
    ) -> None:
        if bins < 1:
            raise ValueError(f"bins must be >= 1, got {bins}")
        if bins > 100_000:
            raise ValueError(f"bins must be <= 100000, got {bins}")
        if not keep >= 0:
            raise ValueError(f"keep must be >= 0 megabytes, got {keep}")
        self.bins = bins
        self.spans = spans
        self.robustness = robustness
        self.keep = keep

    def measure(
        self,
        predictors: Mapping[str, nn.Module],
        loader: Iterable[Batch],
        classes: int,
        pairs: Sequence[tuple[str, str]] = (),
        device: torch.device | str = "cpu",
        known: Mapping[str, Kept] = MappingProxyType({}),
        names: Sequence[str] = (),
    ) -> Measured:
        """Measure all predictors and pairs in one pass.

        Args:
            predictors: networks by name; each takes a batch's inputs and gives logits (*, classes).
            loader: the batches of one split.
            classes: number of classes.
            pairs: names of a predictor and of the reference that it is held against.
            device: where the networks compute.
            known: what some of the predictors said of this very split: looked up, not computed.
            names: of the classes, in their order, which tell the entities.

        Raises:
            UserError: a predictor gives NaN or infinite predictions, or another number of classes;
                or the split is empty.
        """
        tags = self._tags(names)
        texts = _Texts()
        watched = loader if tags is None else texts.counted(loader)
        said = predict(predictors, watched, classes, device, known, names)
        texts.warn()
        logits = said.logits
        return Measured(
            {name: score(own, said, self.bins, tags) for name, own in logits.items()},
            {(one, other): nearness(logits[one], logits[other]) for one, other in pairs},
            said,
        )

    def _tags(self, names: Sequence[str]) -> Sequence[str] | None:
        """The names of the classes, where entities are to be found."""
        if not self.spans:
            return None
        try:
            SpanF1(names)
        except ValueError as failure:
            raise UserError(f"evaluation.spans: {failure}") from failure
        return names


class _Texts:
    """Counts the texts that were cut."""

    def __init__(self) -> None:
        self.all = self.cut = 0

    def counted(self, loader: Iterable[Batch]) -> Iterator[Batch]:
        """The same batches."""
        for batch in loader:
            self.cut, self.all = self.cut + int(cut_texts(batch)), self.all + len(batch.index)
            yield batch

    def warn(self) -> None:
        """Say so if there are any."""
        if self.cut:
            print(
                f"warning: evaluation.spans: {self.cut} of {self.all} texts have words beyond "
                "data.length, whose entities do not count: recall and F1 are too high",
                file=sys.stderr,
            )
