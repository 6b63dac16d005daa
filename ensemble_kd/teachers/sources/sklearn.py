"""An estimator of scikit-learn, or one that is like them, in a skops file."""

from __future__ import annotations

import importlib
import inspect
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ensemble_kd.errors import UserError
from ensemble_kd.given_files import digest_of, offered, one_line, shortened
from ensemble_kd.optional import optional
from ensemble_kd.targets import within
from ensemble_kd.teachers.sources.source import Loaded, Source, Told
from ensemble_kd.teachers.sources.tables import Tabular, check_features

LIBRARIES = ("sklearn", "lightgbm", "xgboost")
"""Packages whose classes a file may hold."""

CONTAINERS = ("collections.OrderedDict",)
"""Plain containers that these write."""


@dataclass(frozen=True)
class Sklearn(Source):
    """What ``skops.io.dump(estimator, path)`` wrote, with ``predict_proba``.

    A class in the file is used when skops trusts it, or when it is defined in scikit-learn,
    LightGBM or XGBoost; functions and all other classes only if they are named.

    Args:
        path: the file; a pickle is refused.
        trusted: further types that may be loaded, by the names that the refusal gives; of packages
            that ``allow`` adds, for a file that asks for trust does not deserve it.
    """

    path: str
    trusted: Sequence[str] = ()

    def load(self, told: Told) -> Loaded:
        """The estimator; its classes are those of ``classes_``."""
        io = optional("skops.io", "tables", f"sklearn: {self.path}")
        file = offered(self.path, "a skops file")
        for name in self.trusted:
            if not within(name, told.allow):
                raise UserError(
                    f"{file}: trusted: {name} is of no package that is allowed: "
                    f"'allow=[{name.partition('.')[0]}]' says that its code may be run"
                )
        estimator = _opened(io, file, self.trusted)
        if not callable(getattr(estimator, "predict_proba", None)):
            raise UserError(
                f"{file}: expected a classifier with predict_proba, got "
                f"{type(estimator).__name__}, which has none"
            )
        classes = _classes(estimator, file)
        check_features(told, getattr(estimator, "n_features_in_", None), str(file))
        library = type(estimator).__module__.partition(".")[0]
        version = str(getattr(importlib.import_module(library), "__version__", ""))
        settings = {"library": [library, version], "mean": told.mean, "std": told.std}
        network = Tabular(Probabilities(estimator), told, str(file)).eval()
        digest = digest_of("sklearn", [file], settings)
        return Loaded(network, digest, names=class_names(classes, told))


class Probabilities:
    """The probabilities of an estimator.

    Args:
        estimator: with ``predict_proba``.
    """

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator

    def __call__(self, rows: Any) -> Any:
        """(b, d) to (b, c)."""
        names = getattr(self.estimator, "feature_names_in_", None)
        if names is None:
            return self.estimator.predict_proba(rows)
        # Trained on a frame with named columns: the same order, under the names that it knows.
        pandas: Any = optional("pandas", "tables", "an estimator of columns with names")
        return self.estimator.predict_proba(pandas.DataFrame(rows, columns=names))


def class_names(classes: Any, told: Told) -> tuple[str, ...] | None:
    """The classes of an estimator as those of the data.

    Args:
        classes: (c,) its ``classes_``: names, or numbers of the classes of the data.
        told: of the data.

    Returns:
        Their names, or None where they are the numbers in the order of the data.
    """
    found = np.asarray(classes)
    if found.dtype.kind not in "biuf":
        return tuple(map(str, found.tolist()))
    numbers = [int(number) for number in found.tolist()]
    if numbers == list(range(len(numbers))) or not all(0 <= n < len(told.names) for n in numbers):
        return None if numbers == list(range(len(numbers))) else tuple(map(str, numbers))
    return tuple(told.names[number] for number in numbers)


def _classes(estimator: Any, file: Path) -> npt.NDArray[Any]:
    """(c,) the classes of an estimator that has learnt one target."""
    classes = getattr(estimator, "classes_", None)
    if classes is None:
        raise UserError(
            f"{file}: expected a classifier that is fitted, got {type(estimator).__name__} "
            "without classes_"
        )
    try:
        found = np.asarray(classes)
    except ValueError:  # several lists of classes, of different lengths
        found = np.empty((0, 0))
    if found.ndim != 1:
        raise UserError(
            f"{file}: expected a classifier of one target, got {type(estimator).__name__} with "
            f"the classes of {len(classes)}"
        )
    return found


def _opened(io: Any, file: Path, trusted: Sequence[str]) -> Any:
    try:
        unknown = io.get_untrusted_types(file=file)
    except (zipfile.BadZipFile, ValueError, KeyError, OSError, TypeError) as failure:
        raise UserError(
            f"{file}: expected a skops file, got one that is damaged or something else: "
            f"{one_line(failure)}"
        ) from failure
    refused = [name for name in unknown if name not in trusted and not _known(name)]
    if refused:
        raise UserError(
            f"{file}: holds types that are not trusted: {shortened(refused)}; who knows them to "
            "be harmless adds trusted: [...], and allow=[...] for their packages"
        )
    try:
        return io.load(file, trusted=unknown)
    except Exception as failure:  # whatever constructors raise on a damaged file
        raise UserError(f"{file}: cannot be loaded: {one_line(failure)}") from failure


def _known(name: str) -> bool:
    """Whether a type is a class that one of the libraries defines.

    A path may lead through their modules to whatever these import: what counts is where the class
    was defined, and that it is one.
    """
    if name in CONTAINERS:
        return True
    module, _, own = name.rpartition(".")
    library = module.partition(".")[0]
    if library not in LIBRARIES:
        return False
    try:
        found = getattr(importlib.import_module(module), own, None)
    except ImportError:
        return False
    return inspect.isclass(found) and f"{found.__module__}.".startswith(f"{library}.")
