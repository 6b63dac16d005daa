"""Predictions that were written down, by the ids of the samples."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ensemble_kd.errors import UserError
from ensemble_kd.given_files import digest_of, ending, offered, shortened
from ensemble_kd.teachers.foreign import Numbered
from ensemble_kd.teachers.sources.probabilities import check_probabilities, logits_of
from ensemble_kd.teachers.sources.recordings import Recording, read_recording
from ensemble_kd.teachers.sources.source import Loaded, Source, Told
from ensemble_kd.types import Output


@dataclass(frozen=True)
class Recorded(Source):
    """Logits or probabilities of every sample, in a file.

    - ``.parquet``: a column of ids, and either one column for each class, which has its name (then
      their order does not matter), or a column ``logits`` or ``probabilities`` of lists.
    - ``.npz``: an array of ids (n,), and ``logits`` or ``probabilities`` (n, c); names of the
      classes as ``names`` (c,) if there are any.
    - ``.npy``: an array (n, c) without ids: a row for each sample of the data, in the order of the
      ids that the data gives (training part, then validation and test parts of their own).

    Args:
        path: the file; nothing is unpickled.
        id: name of the column or array of ids.
        probabilities: whether these are probabilities and not logits; None where the name
            ``logits`` or ``probabilities`` says it. A zero becomes the smallest that has a
            logarithm, see ``sources.probabilities.FLOOR``.
    """

    path: str
    id: str = "id"
    probabilities: bool | None = None

    def load(self, told: Told) -> Loaded:
        """The predictions, each held against a sample."""
        file = ending(offered(self.path, "recorded predictions"), ".npy", ".npz", ".parquet")
        if told.identities is None:
            raise UserError(
                f"{file}: the data gives its samples no ids, so that predictions cannot be recorded"
            )
        ids, numbers = map(np.ascontiguousarray, told.identities())
        held = read_recording(file, self.id, self.probabilities)
        if held.ids is None:
            if len(held.values) != len(ids):
                raise UserError(
                    f"{file}: expected a row for each of {len(ids)} samples, for it has no ids, "
                    f"got {len(held.values)}"
                )
            rows = np.arange(len(ids))
        else:
            rows = rows_of(ids, held.ids, str(file))
        check_values(held, str(file))
        logits = logits_of(held.values) if held.probabilities else torch.from_numpy(held.values)
        network = RecordedAnswers(torch.from_numpy(numbers), logits.float()[rows], str(file))
        settings = {
            "id": self.id,
            "probabilities": held.probabilities,
            "samples": hashlib.sha256(repr((ids.tolist(), numbers.tolist())).encode()).hexdigest(),
        }
        digest = digest_of("recorded", [file], settings)
        return Loaded(network.eval(), digest, names=held.names)


class RecordedAnswers(Numbered):
    """Logits by the numbers of samples.

    Args:
        numbers: (n,) int64, all different.
        logits: (n, c) float32, in that order.
        where: they come from, for messages.
    """

    numbers: Tensor
    logits: Tensor

    def __init__(self, numbers: Tensor, logits: Tensor, where: str) -> None:
        super().__init__()
        ordered = numbers.sort()
        self.where = where
        self.register_buffer("numbers", ordered.values, persistent=False)
        self.register_buffer("logits", logits[ordered.indices].contiguous(), persistent=False)

    def of(self, index: Tensor) -> Output:
        """Logits (b, c) of samples (b,), on their device."""
        asked = index.to(self.numbers.device)
        places = torch.searchsorted(self.numbers, asked).clamp(max=len(self.numbers) - 1)
        absent = self.numbers[places] != asked
        if bool(absent.any()):
            raise UserError(
                f"{self.where}: nothing is recorded of {int(absent.sum())} samples, such as number "
                f"{int(asked[absent][0])}: samples that are made up while training have no ids"
            )
        return Output(self.logits[places].to(index.device))


def rows_of(ids: npt.NDArray[Any], recorded: npt.NDArray[Any], where: str) -> npt.NDArray[np.int64]:
    """The row of each sample in a recording.

    Args:
        ids: (n,) of the samples of the data.
        recorded: (m,) of the rows.
        where: they come from, for messages.

    Raises:
        UserError: samples without a row, rows of no sample, or several of one; how many.
    """
    if (ids.dtype.kind in "iu") != (recorded.dtype.kind in "iu"):
        raise UserError(
            f"{where}: expected ids such as {_few(ids)} as in the data, got {_few(recorded)}"
        )
    places = {value: row for row, value in enumerate(recorded.tolist())}
    own = ids.tolist()
    rows = [places.get(value, -1) for value in own]
    known = set(own)
    found = {
        "samples without a row": sorted({v for v, row in zip(own, rows, strict=True) if row < 0}),
        "rows of no sample": [value for value in places if value not in known],
        "rows of a sample that has one already": _repeated(recorded),
    }
    if any(found.values()):
        told = "; ".join(
            f"{len(some)} {what} ({shortened(some, 3)})" for what, some in found.items() if some
        )
        raise UserError(f"{where}: expected one row for each of {len(own)} samples, got {told}")
    return np.asarray(rows, np.int64)


def check_values(held: Recording, where: str) -> None:
    """Make sure that recorded values can teach.

    Raises:
        UserError: they are not finite or no probabilities, or there are fewer than two classes.
    """
    values = held.values
    if values.ndim != 2 or values.shape[1] < 2:
        raise UserError(f"{where}: expected values (samples, classes >= 2), got {values.shape}")
    if held.names is not None and len(held.names) != values.shape[1]:
        raise UserError(
            f"{where}: expected one name for each of {values.shape[1]} classes, got "
            f"{len(held.names)}"
        )
    bad = ~np.isfinite(values)
    if bad.any():
        rows = bad.any(axis=1)
        raise UserError(
            f"{where}: {int(bad.sum())} values are NaN or infinite, in {int(rows.sum())} rows of "
            f"{len(values)}, first in row {int(rows.argmax())}"
        )
    if held.probabilities:
        check_probabilities(values, where)


def _repeated(values: npt.NDArray[Any]) -> list[Any]:
    """What stands in an array again, once for each time."""
    found, counts = np.unique(values, return_counts=True)
    return [v for v, n in zip(found.tolist(), counts.tolist(), strict=True) for _ in range(n - 1)]


def _few(values: npt.NDArray[Any]) -> str:
    return ", ".join(repr(value) for value in values[:3].tolist())
