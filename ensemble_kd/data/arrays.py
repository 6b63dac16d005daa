"""Arrays of the user's own, from an npz file."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ensemble_kd.data.source import Parts, Samples, Scale, checked, existing, limited
from ensemble_kd.errors import UserError

REMEDY = "write one with numpy.savez(path, x=inputs, y=labels)"


class Arrays:
    """What ``numpy.savez(path, x=..., y=..., x_test=..., y_test=...)`` wrote.

    ``x`` holds the inputs, (n, ...) of any feature shape, uint8 (images; read as [0, 1]) or
    floating point (taken as it is, as float32). ``y`` holds the classes, (n,) integers from 0, or
    -100 where the label is not known. ``x_test`` and ``y_test``, all labelled, are optional;
    without them a test part is split off.

    Args:
        path: the npz file.
        classes: number of classes; by default the largest label in ``y`` is the last class.
        names: of the classes, in their order; they have their numbers for names by default.
        limit: keep that many training samples only.
        stratified: keep the shares of the classes when limiting, else take the first samples.
        mean: subtracted from the inputs: a number, or one for each place of a sample's first axis.
        std: what they are divided by, likewise.
    """

    def __init__(
        self,
        path: str | Path,
        classes: int | None = None,
        names: Sequence[str] | None = None,
        limit: int | None = None,
        stratified: bool = True,
        mean: Scale = (0.0,),
        std: Scale = (1.0,),
    ) -> None:
        if classes is not None and classes < 2:
            raise ValueError(f"classes must be >= 2, got {classes}")
        self.names = tuple(names or ())
        if self.names and len(set(self.names)) != (classes or len(self.names)):
            raise ValueError(f"names must be one for each class, all different, got {self.names}")
        self.path = Path(path).expanduser()
        self.classes = classes or len(self.names) or None
        self.limit = limit
        self.stratified = stratified
        self.mean = mean
        self.std = std

    def load(self) -> Parts:
        """The arrays of the file."""
        held = self._read()
        where = str(self.path.absolute())
        train = checked(held["x"], held["y"], f"{where} (x, y)", self.classes, partly=True)
        classes = self.classes or int(train.labels.max()) + 1
        rows = limited(train.labels, self.limit, self.stratified, where)
        kept = Samples(train.inputs[rows], train.labels[rows])
        if "x_test" not in held:
            return Parts(kept, None, classes, self.names)
        test = checked(held["x_test"], held["y_test"], f"{where} (x_test, y_test)", classes)
        if test.inputs.shape[1:] != kept.inputs.shape[1:] or test.inputs.dtype != kept.inputs.dtype:
            raise UserError(
                f"{where}: x_test must hold samples like x, {kept.inputs.dtype} of shape "
                f"{kept.inputs.shape[1:]}, got {test.inputs.dtype} of shape {test.inputs.shape[1:]}"
            )
        return Parts(kept, test, classes, self.names)

    def _read(self) -> dict[str, npt.NDArray[np.generic]]:
        """The named arrays; nothing is ever unpickled."""
        path = existing(self.path, f"set data.source.path, or {REMEDY}")
        if not zipfile.is_zipfile(path):
            raise UserError(f"{path.absolute()} is truncated or not an npz file; {REMEDY}")
        try:
            with np.load(path, allow_pickle=False) as held:
                names = [n for n in ("x", "y", "x_test", "y_test") if n in held.files]
                arrays = {name: held[name] for name in names}
                others = held.files
                if not all(isinstance(array, np.ndarray) for array in arrays.values()):
                    raise ValueError("a member of the archive is not an array")
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(f"{path.absolute()} is truncated or damaged; {REMEDY}") from error
        except ValueError as error:
            raise UserError(
                f"{path.absolute()} holds Python objects or an array that cannot be read; only "
                f"plain numbers are accepted, nothing is unpickled; {REMEDY}"
            ) from error
        if "x" not in arrays or "y" not in arrays or ("x_test" in arrays) != ("y_test" in arrays):
            raise UserError(
                f"{path.absolute()} must hold x and y, and x_test and y_test both or neither, "
                f"got {', '.join(others) or 'nothing'}; {REMEDY}"
            )
        return arrays
