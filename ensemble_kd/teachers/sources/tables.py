"""Teachers that read the rows of a table, in a library of their own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ensemble_kd.errors import UserError
from ensemble_kd.given_files import one_line
from ensemble_kd.teachers.foreign import Foreign
from ensemble_kd.teachers.sources.preprocess import Raw
from ensemble_kd.teachers.sources.probabilities import logits_of
from ensemble_kd.teachers.sources.source import Told
from ensemble_kd.types import Output

Rows = npt.NDArray[np.float64]


class Tabular(Foreign):
    """A classifier of rows of numbers.

    It gets the features as they were before the data standardised them, flattened, in double
    precision. That undoes a division and a subtraction in single precision, so that a feature may
    be off in its last digit; one that equals a threshold of a tree then falls on either side. Data
    that are served as they are (mean 0, std 1) are exact.

    Args:
        probabilities: from rows (b, d) float64 to probabilities (b, c); can be pickled.
        told: of the data.
        where: the model's file, for messages.
    """

    def __init__(
        self, probabilities: Callable[[Rows], npt.NDArray[Any]], told: Told, where: str
    ) -> None:
        super().__init__()
        self.probabilities = probabilities
        self.where = where
        # In single precision, as the data hold them, and from there on in double.
        raw = Raw(told)
        self.mean, self.std = raw.mean.double().numpy(), raw.std.double().numpy()

    def forward(self, inputs: Tensor) -> Output:
        """Logits (b, c) float32 of inputs (b, ...).

        Raises:
            UserError: the library fails.
        """
        raw = inputs.detach().cpu().double().numpy() * self.std + self.mean
        try:
            logits = logits_of(self.probabilities(raw.reshape(len(raw), -1)))
        except Exception as failure:  # the libraries' errors have no common class
            raise UserError(
                f"{self.where}: the model gives no probabilities: {one_line(failure)}"
            ) from failure
        return Output(logits.to(inputs.device))


def check_features(told: Told, expected: int | None, where: str) -> None:
    """Make sure that samples have as many features as a model was trained with.

    Args:
        told: of the data.
        expected: by the model; None where it does not say.
        where: the model's file, for messages.

    Raises:
        UserError: they have not, or they are texts.
    """
    if told.tokenizer is not None:
        raise UserError(f"{where}: expected rows of numbers, got data that are texts")
    given = math.prod(told.inputs)
    if expected is not None and given != expected:
        raise UserError(
            f"{where}: expected samples of {expected} features, got {given} "
            f"(samples of shape {tuple(told.inputs)})"
        )
