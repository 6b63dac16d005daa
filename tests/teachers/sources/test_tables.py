"""Estimators and boosted trees, their classes, and what is refused."""

from __future__ import annotations

import math
import pickle
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ensemble_kd.teachers.sources import LightGbm, Sklearn, Source, Told, XgBoost
from ensemble_kd.teachers.sources.probabilities import (
    FLOOR,
    check_probabilities,
    logits_of,
    two_classes,
)
from ensemble_kd.teachers.sources.sklearn import class_names

Refusal = Callable[[Callable[[], object]], str]
TOLD = Told((6,), ("ant", "bee", "cat"))


def table(seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(60, 6))
    return rows, (rows[:, 0] + rows[:, 1] > 0).astype(int) + (rows[:, 2] > 0.5)


def dumped(estimator: Any, file: Path) -> str:
    import skops.io

    skops.io.dump(estimator, file)
    return str(file)


def test_logits_of_probabilities() -> None:
    given = np.array([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0], [1 - 1e-12, 1e-12, 0.0]])
    said = logits_of(given)
    assert said.dtype == torch.float32
    for row, values in zip(said.tolist(), given.tolist(), strict=True):
        expected = [math.log(max(value, FLOOR)) for value in values]
        assert row == pytest.approx(expected, rel=1e-6)
    assert torch.isfinite(said).all()
    assert torch.allclose(said[0].double().softmax(-1), torch.from_numpy(given[0]))


def test_two_classes_of_one_probability() -> None:
    assert two_classes(np.array([0.25, 1.0])).tolist() == [[0.75, 0.25], [0.0, 1.0]]


@pytest.mark.parametrize("row", [[0.5, 0.4], [1.2, -0.2], [2.0, -1.0], [0.0, 0.0], [0.5, 0.502]])
def test_what_are_no_probabilities(row: list[float], refusal: Refusal) -> None:
    values = np.array([[0.5, 0.5], row, [0.3333, 0.6666]])
    said = refusal(lambda: check_probabilities(values, "here"))
    assert said.startswith("here: expected probabilities in [0, 1] that sum up to one, got 1 rows")
    assert "first row 1" in said
    check_probabilities(values[::2], "here")


class TestFeatures:
    @pytest.mark.parametrize("name", ["sklearn", "lightgbm", "xgboost"])
    def test_they_are_those_before_standardisation(self, name: str, make: Any) -> None:
        case = make(name)
        source: Source = case.source
        assert case.told.mean is not None
        plain = source.load(replace(case.told, mean=None, std=None))
        raw = case.inputs * torch.tensor(case.told.std) + torch.tensor(case.told.mean)
        with torch.no_grad():
            said, same = source.load(case.told).network(case.inputs), plain.network(raw)
            other = plain.network(case.inputs)
        assert torch.equal(said.logits, same.logits)
        assert not torch.allclose(said.logits, other.logits, atol=1e-3)

    def test_they_are_flattened(self, make: Any) -> None:
        case = make("lightgbm")
        told = replace(TOLD, inputs=(2, 3), mean=0.0, std=1.0)
        shaped = case.inputs.view(-1, 2, 3)
        flat = case.source.load(TOLD).network(case.inputs).logits
        assert torch.equal(case.source.load(told).network(shaped).logits, flat)

    @pytest.mark.parametrize("name", ["sklearn", "lightgbm", "xgboost"])
    def test_their_number_is_checked(self, name: str, make: Any, refusal: Refusal) -> None:
        case = make(name)
        told = replace(case.told, inputs=(7,), mean=None, std=None)
        said = refusal(lambda: case.source.load(told))
        assert "expected samples of 6 features, got 7 (samples of shape (7,))" in said
        texts = replace(told, tokenizer=object())
        assert "expected rows of numbers" in refusal(lambda: case.source.load(texts))


@pytest.mark.parametrize(
    ("classes", "names"),
    [
        (np.array([0, 1, 2]), None),
        (np.array([False, True]), None),
        (np.array([0.0, 1.0, 2.0]), None),
        (np.array([0, 2]), ("ant", "cat")),
        (np.array([1, 2]), ("bee", "cat")),
        (np.array([5, 7]), ("5", "7")),
        (np.array(["cat", "ant", "bee"]), ("cat", "ant", "bee")),
        (np.array(["cat", "ant"], object), ("cat", "ant")),
    ],
)
def test_classes_are_numbers_or_names_of_the_data(classes: Any, names: Any) -> None:
    assert class_names(classes, TOLD) == names


class TestSklearn:
    def test_names_are_its_own(self, tmp_path: Path) -> None:
        from sklearn.linear_model import LogisticRegression

        rows, target = table()
        words = np.array(["cat", "ant", "bee"])[target]
        estimator = LogisticRegression().fit(rows, words)
        loaded = Sklearn(dumped(estimator, tmp_path / "m.skops")).load(TOLD)
        assert loaded.names == ("ant", "bee", "cat")
        said = loaded.network(torch.from_numpy(rows).float()).logits.softmax(-1)
        assert torch.allclose(
            said.double(), torch.from_numpy(estimator.predict_proba(rows)), atol=1e-5
        )

    def test_columns_with_names(self, tmp_path: Path) -> None:
        import pandas as pd
        from sklearn.linear_model import LogisticRegression

        rows, target = table()
        frame = pd.DataFrame(rows, columns=list("abcdef"))
        estimator = LogisticRegression().fit(frame, target)
        loaded = Sklearn(dumped(estimator, tmp_path / "m.skops")).load(TOLD)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            said = loaded.network(torch.from_numpy(rows).float()).logits.softmax(-1)
        expected = torch.from_numpy(estimator.predict_proba(frame))
        assert torch.allclose(said.double(), expected, atol=1e-5)

    @pytest.mark.parametrize("kind", ["hist", "neighbours", "lightgbm", "xgboost"])
    def test_estimators_of_the_known_libraries_are_trusted(self, kind: str, tmp_path: Path) -> None:
        from lightgbm import LGBMClassifier
        from sklearn.ensemble import HistGradientBoostingClassifier
        from sklearn.neighbors import KNeighborsClassifier
        from xgboost import XGBClassifier

        made = {
            "hist": lambda: HistGradientBoostingClassifier(max_iter=3),
            "neighbours": lambda: KNeighborsClassifier(),
            "lightgbm": lambda: LGBMClassifier(n_estimators=3, verbose=-1, n_jobs=1),
            "xgboost": lambda: XGBClassifier(n_estimators=3, n_jobs=1),
        }
        rows, target = table()
        estimator: Any = made[kind]().fit(rows, target)
        loaded = Sklearn(dumped(estimator, tmp_path / "m.skops")).load(TOLD)
        given = torch.from_numpy(rows).float()
        expected = torch.from_numpy(estimator.predict_proba(given.double().numpy())).double()
        said = loaded.network(given).logits.double().softmax(-1)
        assert torch.allclose(said, (expected.clamp(min=FLOOR)), atol=1e-5)

    def test_functions_and_strangers_are_named_and_refused(
        self, tmp_path: Path, refusal: Refusal
    ) -> None:
        from sklearn.datasets import load_wine
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import FunctionTransformer

        rows, target = table()
        # Functions may do anything to what they are called with, wherever they are defined.
        functions: tuple[Any, ...] = (load_wine, shutil.rmtree, eval)
        for function in functions:
            estimator = make_pipeline(FunctionTransformer(), LogisticRegression())
            estimator.fit(rows, target)
            estimator[0].func = function
            file = dumped(estimator, tmp_path / "m.skops")
            said = refusal(lambda file=file: Sklearn(file).load(TOLD))  # type: ignore[misc]
            name = f"{function.__module__}.{function.__name__}"
            assert f"holds types that are not trusted: {name}" in said
        estimator[0].func = load_wine
        source = Sklearn(
            dumped(estimator, tmp_path / "m.skops"), ["sklearn.datasets._base.load_wine"]
        )
        assert "'allow=[sklearn]' says that its code may be run" in refusal(
            lambda: source.load(TOLD)
        )
        assert source.load(replace(TOLD, allow=("sklearn",))).names is None

    def test_what_is_refused(self, make: Any, tmp_path: Path, refusal: Refusal) -> None:
        from sklearn.linear_model import LinearRegression, LogisticRegression
        from sklearn.tree import DecisionTreeClassifier

        rows, target = table()
        file = dumped(LinearRegression().fit(rows, target), tmp_path / "m.skops")
        assert "expected a classifier with predict_proba, got LinearRegression" in refusal(
            lambda: Sklearn(file).load(TOLD)
        )
        file = dumped(LogisticRegression(), tmp_path / "m.skops")
        assert "expected a classifier that is fitted, got LogisticRegression" in refusal(
            lambda: Sklearn(file).load(TOLD)
        )
        for second in (target, target * 0):
            tree = DecisionTreeClassifier().fit(rows, np.stack([target, second], axis=1))
            file = dumped(tree, tmp_path / "m.skops")
            assert "expected a classifier of one target, got DecisionTreeClassifier" in refusal(
                lambda file=file: Sklearn(file).load(TOLD)  # type: ignore[misc]
            )
        whole = Path(make("sklearn").source.path).read_bytes()
        for broken in (whole[: len(whole) // 2], b"something"):
            Path(file).write_bytes(broken)
            assert "expected a skops file" in refusal(lambda: Sklearn(file).load(TOLD))


@pytest.mark.parametrize("ending", [".pkl", ".joblib", ".pickle", ".txt", ".json", ".skops"])
@pytest.mark.parametrize("source", [Sklearn, LightGbm, XgBoost])
def test_a_pickle_is_refused(
    source: type[Any], ending: str, tmp_path: Path, refusal: Refusal
) -> None:
    file = tmp_path / f"model{ending}"
    file.write_bytes(pickle.dumps({"anything": 1}))
    said = refusal(lambda: source(str(file)).load(TOLD))
    assert "got a pickle: nothing is unpickled" in said
    assert "skops.io.dump" in said


@pytest.mark.parametrize("name", ["sklearn", "lightgbm", "xgboost"])
def test_a_model_that_fails_when_it_is_asked(name: str, make: Any, refusal: Refusal) -> None:
    case = make(name)
    network = case.source.load(replace(case.told, mean=0.0, std=1.0)).network
    said = refusal(lambda: network(torch.zeros(4, 5)))
    assert said.startswith(f"{case.source.path}: the model gives no probabilities: ")


@pytest.mark.parametrize(
    ("source", "package", "extra"),
    [
        (Sklearn, "skops", "tables"),
        (LightGbm, "lightgbm", "tables"),
        (XgBoost, "xgboost", "xgboost"),
    ],
)
def test_a_package_that_is_not_installed(
    source: type[Any], package: str, extra: str, refusal: Refusal, monkeypatch: Any
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"{package}.io", raising=False)
    said = refusal(lambda: source("file").load(TOLD))
    assert f"needs the package {package!r}: pip install ensemble-kd[{extra}]" in said
