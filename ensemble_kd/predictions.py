"""What predictors said of a split, sample by sample: kept, so that it can be read again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from ensemble_kd.errors import UserError
from ensemble_kd.files import write_whole
from ensemble_kd.plain_files import parse_json
from ensemble_kd.types import UNLABELLED

INDEX, TARGET, LOGITS = "index", "target", "logits/"
META = "ensemble_kd"


@dataclass(frozen=True)
class Predictions:
    """What every predictor of a run said of one split. A row is a sample, or a place of a sequence.

    Attributes:
        names: of the classes, in their order.
        index: (n,) int64, the number of the sample; of a sequence, that of each of its places.
        target: (n,) int64, the class, ``UNLABELLED`` where it is not known.
        logits: (n, c) float32 by predictor, in the order in which they are reported.
    """

    names: tuple[str, ...]
    index: Tensor
    target: Tensor
    logits: Mapping[str, Tensor]

    @property
    def nbytes(self) -> int:
        """Size of the logits in bytes."""
        return sum(values.nbytes for values in self.logits.values())


def write_predictions(predictions: Predictions, path: Path) -> None:
    """Write a file of safetensors, whole or not at all.

    Raises:
        UserError: the file system refuses.
    """
    tensors = {INDEX: predictions.index, TARGET: predictions.target}
    tensors |= {LOGITS + name: values for name, values in predictions.logits.items()}
    said = {"names": list(predictions.names), "predictors": list(predictions.logits)}
    arrays = {name: np.ascontiguousarray(values.numpy()) for name, values in tensors.items()}
    write_whole(path, save(arrays, {META: json.dumps(said)}))


def read_predictions(path: Path) -> Predictions:
    """Read what ``write_predictions`` wrote.

    Raises:
        UserError: it is not there, not whole, or something else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            said = parse_json((file.metadata() or {})[META])
            found = Predictions(
                tuple(said["names"]),
                file.get_tensor(INDEX),
                file.get_tensor(TARGET),
                {name: file.get_tensor(LOGITS + name) for name in said["predictors"]},
            )
            _expect_whole(found)
            return found
    except OSError as failure:
        raise UserError(f"cannot read {path}: {failure.strerror or failure}") from failure
    except (SafetensorError, KeyError, TypeError, ValueError) as failure:
        raise UserError(
            f"{path}: expected the predictions of a run, got something else"
        ) from failure


def _expect_whole(found: Predictions) -> None:
    """Everything must be of the same rows and classes.

    Raises:
        ValueError: it is not.
    """
    rows, classes = found.target.shape, len(found.names)
    if found.target.ndim != 1 or found.index.shape != rows:
        raise ValueError("index and target must be of the same samples")
    if found.target.dtype != torch.int64 or found.index.dtype != torch.int64:
        raise ValueError("index and target must be int64")
    known = found.target[found.target != UNLABELLED]
    if bool(((known < 0) | (known >= classes)).any()):
        raise ValueError("target must name classes")
    if any(values.shape != (*rows, classes) for values in found.logits.values()):
        raise ValueError("logits must be (samples, classes)")


def by_sample(values: Tensor, index: Tensor, filler: int) -> Tensor:
    """Rows of places as rows of sequences, (n,) -> (samples, longest), with a filler behind.

    Args:
        values: (n,) int64, one for each place.
        index: (n,) int64, the sample of each place; those of a sample stand side by side.
        filler: what stands where a sequence has ended.
    """
    counts = index.unique_consecutive(return_counts=True)[1]
    rows: list[Tensor] = list(values.split(counts.tolist()))
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=filler)
