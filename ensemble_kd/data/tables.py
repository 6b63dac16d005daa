"""Tables of what a source holds."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ensemble_kd.data.batches import Table
from ensemble_kd.data.pictures import Pictures
from ensemble_kd.data.source import Samples, Scale
from ensemble_kd.data.texts import Texts, joined
from ensemble_kd.types import UNLABELLED

Served = Tensor | Pictures | Texts
"""Inputs as a table takes them."""


class Scaling(NamedTuple):
    """What a table subtracts from its inputs and what it divides them by."""

    mean: Scale
    std: Scale


def plain(scale: Scale) -> float | tuple[float, ...]:
    """A number, or one for each channel, as plain numbers."""
    values = np.asarray(scale, dtype=np.float64)
    return float(values) if values.ndim == 0 else tuple(values.tolist())


def table_of(samples: Samples, scaling: Scaling | None, first: int = 0) -> Table:
    """All samples of a part, with all labels that there are.

    Args:
        samples: of which texts have tokens.
        scaling: None for texts.
        first: the number of the first sample.
    """
    inputs = samples.inputs
    if not isinstance(inputs, Pictures | Texts):
        inputs = _tensor(inputs)
    return _made(inputs, _tensor(samples.labels), scaling, False, first)


def but_for(table: Table, rows: npt.NDArray[np.int64], scaling: Scaling | None) -> Table:
    """A table in which only some rows have labels: others are not even there to be read."""
    kept = torch.zeros(len(table), dtype=torch.bool)
    kept[torch.from_numpy(rows)] = True
    kept = kept.reshape(-1, *[1] * (table.target.ndim - 1))
    return _made(table.inputs, torch.where(kept, table.target, UNLABELLED), scaling, True)


def extended(table: Table, made: Any, scaling: Scaling | None) -> Table:
    """A table with made-up samples behind its own, which nobody has labelled."""
    inputs: Served
    if isinstance(table.inputs, Texts):
        inputs = joined(table.inputs, made)
    elif isinstance(table.inputs, Pictures):
        raise TypeError("made-up samples cannot stand behind files of images")
    else:
        inputs = torch.cat([table.inputs, made])
    unknown = torch.full((inputs.shape[0] - len(table), *table.target.shape[1:]), UNLABELLED)
    return _made(inputs, torch.cat([table.target, unknown]), scaling, True)


def _made(
    inputs: Served, target: Tensor, scaling: Scaling | None, partly: bool, first: int = 0
) -> Table:
    """A table; ``partly`` where some of the samples that are read have no label."""
    mask = target != UNLABELLED if partly or target.ndim > 1 else None
    places = inputs.places if isinstance(inputs, Texts) and target.ndim > 1 else None
    mean, std = scaling or (0.0, 1.0)
    return Table(inputs, target, mean, std, mask, places, first)


def _tensor(array: npt.NDArray[np.generic]) -> Tensor:
    # PyTorch warns of arrays that it could not write to, such as views of a file's bytes.
    return torch.from_numpy(np.require(array, None, ["C", "W"]))
