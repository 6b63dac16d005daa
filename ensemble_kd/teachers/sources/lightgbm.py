"""A LightGBM model in its own text format."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ensemble_kd.errors import UserError
from ensemble_kd.given_files import digest_of, offered, one_line
from ensemble_kd.optional import optional
from ensemble_kd.teachers.sources.probabilities import two_classes
from ensemble_kd.teachers.sources.source import Loaded, Source, Told
from ensemble_kd.teachers.sources.tables import Tabular, check_features

BINARY = ("binary", "cross_entropy", "xentropy")
SEVERAL = ("multiclass", "softmax", "multiclassova", "multiclass_ova", "ova", "ovr")


@dataclass(frozen=True)
class LightGbm(Source):
    """What ``booster.save_model(path)`` wrote of a classifier.

    Its classes are those of the data, in their order: the file does not name them.

    Args:
        path: the text file; a pickle is refused.
        threads: of the library; 0 for as many as it likes.
    """

    path: str
    threads: int = 1

    def load(self, told: Told) -> Loaded:
        """The booster, asked for probabilities."""
        lightgbm: Any = optional("lightgbm", "tables", f"lightgbm: {self.path}")
        file = offered(self.path, "a LightGBM model")
        objective = _objective(file)
        try:
            booster = lightgbm.Booster(model_file=str(file))
        except lightgbm.basic.LightGBMError as failure:
            raise UserError(f"{file}: expected a LightGBM model: {one_line(failure)}") from failure
        check_features(told, booster.num_feature(), str(file))
        settings = {"version": lightgbm.__version__, "mean": told.mean, "std": told.std}
        network = Tabular(
            Probabilities(booster, objective in BINARY, self.threads), told, str(file)
        )
        return Loaded(network.eval(), digest_of("lightgbm", [file], settings))


class Probabilities:
    """The probabilities of a booster.

    Args:
        booster: of LightGBM.
        binary: it gives one probability, that of the second of two classes.
        threads: of the library.
    """

    def __init__(self, booster: Any, binary: bool, threads: int) -> None:
        self.booster = booster
        self.binary = binary
        self.threads = threads

    def __call__(self, rows: Any) -> Any:
        """(b, d) to (b, c)."""
        said = self.booster.predict(rows, num_threads=self.threads)
        return two_classes(said) if self.binary else said


def _objective(file: Path) -> str:
    """What the model was trained for.

    The library ends the whole process on some damaged files, so that they are looked at before.
    """
    try:
        text = file.read_bytes().decode()
    except UnicodeDecodeError as failure:
        raise UserError(f"{file}: expected a LightGBM model as text, got other bytes") from failure
    head, _, trees = text.partition("\n\n")
    fields = dict(re.findall(r"^(\w+)=(.*)$", head, flags=re.MULTILINE))
    if not text.startswith("tree\n") or not {"objective", "tree_sizes"} <= set(fields):
        raise UserError(
            f"{file}: expected a LightGBM model as booster.save_model writes it, got another text"
        )
    sizes = fields["tree_sizes"].split()
    if not all(re.fullmatch("[0-9]{1,18}", size) for size in sizes):
        raise UserError(f"{file}: the LightGBM model is damaged, in its tree_sizes")
    rest = trees.encode()
    for number, size in enumerate(map(int, sizes)):
        own, rest = rest[:size], rest[size:]
        if len(own) < size or not own.startswith(f"Tree={number}\n".encode()):
            raise UserError(f"{file}: the LightGBM model is truncated or damaged, in tree {number}")
    if not rest.lstrip().startswith(b"end of trees"):
        raise UserError(f"{file}: the LightGBM model is truncated or damaged, after its trees")
    objective: str = fields["objective"].split(" ")[0]
    if objective not in (*BINARY, *SEVERAL):
        raise UserError(
            f"{file}: expected a classifier, binary or multiclass, got the objective {objective!r}"
        )
    return objective
