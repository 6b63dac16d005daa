"""An XGBoost model in its own formats."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from ensemble_kd.errors import UserError
from ensemble_kd.given_files import digest_of, ending, offered
from ensemble_kd.optional import optional
from ensemble_kd.teachers.sources.probabilities import two_classes
from ensemble_kd.teachers.sources.source import Loaded, Source, Told
from ensemble_kd.teachers.sources.tables import Tabular, check_features
from ensemble_kd.teachers.sources.ubjson import check_ubjson

BINARY = ("binary:logistic", "binary:logitraw")
SEVERAL = ("multi:softprob", "multi:softmax")


@dataclass(frozen=True)
class XgBoost(Source):
    """What ``save_model(path)`` wrote of a classifier.

    Its classes are those of the data, in their order: the file does not name them. Of a model that
    stopped early, the best round counts, as in ``XGBClassifier``.

    Args:
        path: a file .json or .ubj; a pickle is refused.
        threads: of the library; 0 for as many as it likes.
    """

    path: str
    threads: int = 1

    def load(self, told: Told) -> Loaded:
        """The booster, asked for probabilities."""
        xgboost: Any = optional("xgboost", "xgboost", f"xgboost: {self.path}")
        file = ending(offered(self.path, "an XGBoost model"), ".json", ".ubj")
        booster = xgboost.Booster()
        try:
            # The library ends the whole process on some damaged files.
            check = check_ubjson if file.suffix.lower() == ".ubj" else json.loads
            check(file.read_bytes())
            booster.load_model(file)
            objective = json.loads(booster.save_config())["learner"]["objective"]["name"]
        except (xgboost.core.XGBoostError, ValueError, KeyError, RecursionError) as failure:
            raise UserError(
                f"{file}: expected an XGBoost model, got a file that is truncated or damaged"
            ) from failure
        if objective not in (*BINARY, *SEVERAL):
            raise UserError(
                f"{file}: expected a classifier, {', '.join((*BINARY, *SEVERAL))}, got the "
                f"objective {objective!r}"
            )
        check_features(told, booster.num_features(), str(file))
        booster.set_param({"nthread": self.threads})
        settings = {"version": xgboost.__version__, "mean": told.mean, "std": told.std}
        network = Tabular(Probabilities(booster, objective in BINARY), told, str(file))
        return Loaded(network.eval(), digest_of("xgboost", [file], settings))


class Probabilities:
    """The probabilities of a booster.

    Args:
        booster: of XGBoost.
        binary: it gives one margin, that of the second of two classes.
    """

    def __init__(self, booster: Any, binary: bool) -> None:
        self.booster = booster
        self.binary = binary
        best = booster.attributes().get("best_iteration")
        self.rounds = (0, 0) if best is None else (0, int(best) + 1)

    def __call__(self, rows: Any) -> Any:
        """(b, d) to (b, c)."""
        # Margins, for multi:softmax gives classes where others give probabilities.
        margins = self.booster.inplace_predict(
            rows.astype(np.float32),
            iteration_range=self.rounds,
            predict_type="margin",
            validate_features=False,
        ).astype(np.float64)
        if self.binary:
            return two_classes(1 / (1 + np.exp(-margins)))
        powers = np.exp(margins - margins.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)
