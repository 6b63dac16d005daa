"""How much the networks of a setting differ from seed to seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ensemble_kd.errors import UserError
from ensemble_kd.report.sweep_contract import ChurnEntry

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PREDICTIONS = "predictions/test.safetensors"
LONGEST = 2**20
"""Places that a sequence may have."""


class Said(NamedTuple):
    """What predictors of a run said of its test split.

    Attributes:
        names: of the classes.
        rows: (n,) int64, a number for each sample or, of a sequence, for each of its places.
        target: (n,) int64, the class.
        named: (n,) int64 by predictor, the class that it named.
    """

    names: tuple[str, ...]
    rows: NDArray[np.int64]
    target: NDArray[np.int64]
    named: Mapping[str, NDArray[np.int64]]


def churn(runs: Sequence[Path], predictors: Sequence[str]) -> dict[str, ChurnEntry | None]:
    """Prediction churn of some predictors between the runs of a setting.

    Milani Fard et al., Launch and Iterate: Reducing Prediction Churn, NIPS 2016, in the
    mean over all pairs of runs. A seed decides the test split too, so that a pair is compared on
    the samples that both splits hold. Pairs whose classes or targets differ are left out, as are
    runs whose predictions were not kept or cannot be read.

    Args:
        runs: run folders, one for each seed.
        predictors: by their names.

    Returns:
        By predictor; None where no pair has a sample in common.
    """
    said = [each for each in (_read(run, predictors) for run in runs) if each is not None]
    shares: dict[str, list[float]] = {name: [] for name in predictors}
    samples: dict[str, list[int]] = {name: [] for name in predictors}
    for one, other in combinations(said, 2):
        rows = _common(one, other)
        if rows is None:
            continue
        for name in predictors:
            if name in one.named and name in other.named:
                differ = one.named[name][rows[0]] != other.named[name][rows[1]]
                shares[name].append(float(differ.mean()))
                samples[name].append(len(differ))
    return {name: _entry(shares[name], samples[name]) for name in predictors}


def _read(run: Path, predictors: Sequence[str]) -> Said | None:
    import torch

    from ensemble_kd.predictions import read_predictions

    try:
        found = read_predictions(run / PREDICTIONS)
    except UserError:
        return None
    _, counts = found.index.unique_consecutive(return_counts=True)
    places = torch.cat([torch.arange(count) for count in counts.tolist()] or [found.index])
    rows = found.index * LONGEST + places
    named = {name: found.logits[name].argmax(-1) for name in predictors if name in found.logits}
    return Said(
        found.names,
        rows.numpy(),
        found.target.numpy(),
        {name: classes.numpy() for name, classes in named.items()},
    )


def _common(one: Said, other: Said) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Rows of two runs that are of the same samples, side by side; None if there are none."""
    import numpy as np

    shared, first, second = np.intersect1d(one.rows, other.rows, return_indices=True)
    if one.names != other.names or not shared.size:
        return None
    if not np.array_equal(one.target[first], other.target[second]):
        return None
    return first, second


def _entry(shares: Sequence[float], samples: Sequence[int]) -> ChurnEntry | None:
    if not shares:
        return None
    return ChurnEntry(
        mean=sum(shares) / len(shares), pairs=len(shares), samples=sum(samples) / len(samples)
    )
