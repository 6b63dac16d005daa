"""Made-up samples for the teachers to label, near the real ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ensemble_kd.data.synthesis import Synthesis
from ensemble_kd.errors import UserError

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Munge(Synthesis):
    """MUNGE: each sample trades attributes with its nearest neighbour.

    Source: Bucila, Caruana and Niculescu-Mizil, Model Compression (KDD 2006), algorithm 1. For each
    sample e with nearest neighbour e', and for each attribute with probability p: a continuous
    attribute of e is drawn from a normal distribution around that of e', and the other way round,
    both with the standard deviation |e - e'| / s; a discrete one is exchanged. As in the paper, a
    pass goes through the samples in order and changes both of a pair, so that a later sample sees
    what earlier ones left; neighbours are those in the real data, by Euclidean distance. Deviation:
    distances are taken over all attributes as they are; scale the columns of a table alike first.

    Args:
        copies: passes, each of which makes as many samples as there are; the paper's k.
        p: probability that an attribute changes, in [0, 1].
        s: local variance parameter, > 0: the larger, the nearer to the pair's own values.
        discrete: columns whose values are exchanged as they are.

    Raises:
        ValueError: an argument is out of range.
    """

    copies: int = 1
    p: float = 0.5
    s: float = 1.0
    discrete: Sequence[int] = ()

    def __post_init__(self) -> None:
        if self.copies < 1:
            raise ValueError(f"copies must be >= 1, got {self.copies}")
        if not 0 <= self.p <= 1:
            raise ValueError(f"p must be in [0, 1], got {self.p}")
        if not 0 < self.s < float("inf"):
            raise ValueError(f"s must be a finite number > 0, got {self.s}")

    def __call__(self, inputs: npt.NDArray[Any], seed: int) -> FloatArray:
        """Make samples.

        Args:
            inputs: (n, d) the real samples, n >= 2.
            seed: decides all draws.

        Returns:
            (copies * n, d) float32.

        Raises:
            UserError: the inputs are not a table of numbers, or a discrete column is not there.
        """
        if not isinstance(inputs, np.ndarray):
            raise UserError(
                "data.synthesise: expected a table (n, d) of floating-point features, got texts"
            )
        if inputs.ndim != 2 or not np.issubdtype(inputs.dtype, np.floating):
            raise UserError(
                f"data.synthesise: expected a table (n, d) of floating-point features, got shape "
                f"{inputs.shape} of {inputs.dtype}; for images use data.augment"
            )
        if len(inputs) < 2:
            raise UserError("data.synthesise: expected at least two training samples, got one")
        wrong = [column for column in self.discrete if not 0 <= column < inputs.shape[1]]
        if wrong:
            raise UserError(
                f"data.synthesise.discrete: expected columns in [0, {inputs.shape[1]}), got {wrong}"
            )
        neighbours = _nearest(inputs)
        generator = np.random.default_rng(seed)
        passes = [self._pass(inputs, neighbours, generator) for _ in range(self.copies)]
        return np.concatenate(passes)

    def _pass(
        self, inputs: FloatArray, neighbours: npt.NDArray[np.int64], generator: np.random.Generator
    ) -> FloatArray:
        made = inputs.copy()
        continuous = np.ones(inputs.shape[1], dtype=bool)
        continuous[list(self.discrete)] = False
        changes = generator.random(inputs.shape) < self.p
        draws = generator.standard_normal((2, *inputs.shape))
        for row, near in enumerate(neighbours):
            mine, theirs = made[row].copy(), made[near].copy()
            spread = np.where(continuous, np.abs(mine - theirs) / self.s, 0.0)
            made[row] = np.where(changes[row], theirs + spread * draws[0, row], mine)
            made[near] = np.where(changes[row], mine + spread * draws[1, row], theirs)
        return made


def _nearest(inputs: FloatArray) -> npt.NDArray[np.int64]:
    """The nearest other sample of each sample, (n,)."""
    from sklearn.neighbors import NearestNeighbors

    # A sample's own nearest is itself, or one that is equal to it.
    found: npt.NDArray[np.int64]
    _, found = NearestNeighbors(n_neighbors=2).fit(inputs).kneighbors(inputs)
    own = np.arange(len(inputs))
    return np.where(found[:, 0] == own, found[:, 1], found[:, 0])
