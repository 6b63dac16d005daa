"""Where a teacher comes from that was not trained here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import nn

Identities = tuple[npt.NDArray[Any], npt.NDArray[np.int64]]
"""The ids by which the user knows all samples, (n,) integers or text, and the numbers (n,) by which
batches know them (``Batch.index``)."""


Names = tuple[str | tuple[str, ...] | None, ...]
"""Of the outputs of a teacher."""


@dataclass(frozen=True)
class Told:
    """What a source is told of the run.

    Attributes:
        inputs: shape of one sample.
        names: of the classes of the data, in their order.
        mean: what the data subtracts from its inputs, a number or one for each channel; None where
            it serves them as they are.
        std: what it divides them by afterwards, likewise.
        tokenizer: of data that are texts: the ``tokenizers.Tokenizer`` that made their ids.
        per_token: whether each token has a class, and not each text.
        identities: gives the ids of all samples; None where the data has no fixed samples.
        allow: packages beside this project's whose classes may be used.
    """

    inputs: tuple[int, ...]
    names: tuple[str, ...]
    mean: float | tuple[float, ...] | None = None
    std: float | tuple[float, ...] | None = None
    tokenizer: Any = None
    per_token: bool = False
    identities: Callable[[], Identities] | None = None
    allow: tuple[str, ...] = ()


class Loaded(NamedTuple):
    """A teacher that is there.

    Attributes:
        network: takes the inputs of a batch, as the data serves them, and gives logits (*, c).
        digest: of all that decides what it says, in hex.
        folder: the artefact, where it is one.
        names: of its outputs, where it says them itself; they need not be those of the data.
            Several are the classes that an output covers together, None is a class of nobody.
    """

    network: nn.Module
    digest: str
    folder: Path | None = None
    names: Names | None = None


class Source(ABC):
    """Where a teacher comes from; the first argument of a constructor is what it is."""

    @abstractmethod
    def load(self, told: Told) -> Loaded:
        """Open the teacher, in eval mode, on the CPU.

        Raises:
            UserError: in one line, what is missing, damaged, unsafe or does not fit.
        """
