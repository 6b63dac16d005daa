"""Boosted trees: what they say, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ensemble_kd.teachers.sources import LightGbm, Told, XgBoost

Refusal = Callable[[Callable[[], object]], str]


TOLD = Told((6,), ("ant", "bee", "cat"))


def table(seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(60, 6))
    return rows, (rows[:, 0] + rows[:, 1] > 0).astype(int) + (rows[:, 2] > 0.5)


class TestBoosters:
    def test_digests_tell_arguments_that_matter(self, make: Any) -> None:
        for name in ("lightgbm", "xgboost"):
            case = make(name, folder=name)
            digest = case.source.load(case.told).digest
            assert replace(case.source, threads=2).load(case.told).digest == digest
            assert case.source.load(replace(case.told, mean=0.0)).digest != digest

    def test_the_best_round_counts(self, tmp_path: Path) -> None:
        from xgboost import XGBClassifier

        rows, target = table()
        noise = np.random.default_rng(1).permutation(target)
        model = XGBClassifier(n_estimators=30, early_stopping_rounds=2, n_jobs=1)
        model.fit(rows, target, eval_set=[(rows, noise)], verbose=False)
        assert model.best_iteration < model.get_booster().num_boosted_rounds() - 1
        model.save_model(tmp_path / "m.json")
        loaded = XgBoost(str(tmp_path / "m.json")).load(TOLD)
        said = loaded.network(torch.from_numpy(rows).float()).logits.softmax(-1)
        assert torch.allclose(said, torch.from_numpy(model.predict_proba(rows)), atol=1e-5)

    @pytest.mark.parametrize("objective", ["multi:softmax", "multi:softprob"])
    def test_xgboost_without_its_estimator(self, objective: str, tmp_path: Path) -> None:
        import xgboost

        rows, target = table()
        settings = {"objective": objective, "num_class": 3, "nthread": 1}
        booster = xgboost.train(settings, xgboost.DMatrix(rows, target), 3)
        booster.save_model(tmp_path / "m.ubj")
        booster.set_param({"objective": "multi:softprob"})
        expected = torch.from_numpy(booster.predict(xgboost.DMatrix(rows)))
        loaded = XgBoost(str(tmp_path / "m.ubj")).load(TOLD)
        said = loaded.network(torch.from_numpy(rows).float()).logits.softmax(-1)
        assert torch.allclose(said, expected, atol=1e-5)

    def test_regressions_are_refused(self, tmp_path: Path, refusal: Refusal) -> None:
        from lightgbm import LGBMRegressor
        from xgboost import XGBRegressor

        rows, target = table()
        light = LGBMRegressor(n_estimators=2, verbose=-1, n_jobs=1).fit(rows, target)
        light.booster_.save_model(tmp_path / "m.txt")
        assert "got the objective 'regression'" in refusal(
            lambda: LightGbm(str(tmp_path / "m.txt")).load(TOLD)
        )
        XGBRegressor(n_estimators=2, n_jobs=1).fit(rows, target).save_model(tmp_path / "m.json")
        assert "got the objective 'reg:squarederror'" in refusal(
            lambda: XgBoost(str(tmp_path / "m.json")).load(TOLD)
        )

    @pytest.mark.parametrize("name", ["lightgbm", "xgboost", "xgboost_of_two"])
    def test_damaged_files(self, name: str, make: Any, refusal: Refusal) -> None:
        case = make(name)
        file = Path(case.source.path)
        whole = file.read_bytes()

        def line(content: bytes) -> str:
            file.write_bytes(content)
            return refusal(lambda: case.source.load(case.told))

        for share in (0.05, 0.3, 0.6, 0.8):
            line(whole[: int(share * len(whole))])
        line(b"something else")
        assert "got an empty file" in line(b"")
        file.unlink()
        assert "found no such file" in refusal(lambda: case.source.load(case.told))

    def test_a_tree_that_was_changed(self, make: Any, refusal: Refusal) -> None:
        case = make("lightgbm")
        file = Path(case.source.path)
        text = file.read_text()
        file.write_text(text.replace("Tree=1\n", "Tree=1 \n"))
        assert "truncated or damaged, in tree 1" in refusal(lambda: case.source.load(case.told))
        for sizes in ("a b", "-1", "1 ²"):
            file.write_text(re.sub("tree_sizes=.*", f"tree_sizes={sizes}", text))
            assert "damaged, in its tree_sizes" in refusal(lambda: case.source.load(case.told))
        file.write_bytes(b"tree\n\xff\xfe")
        assert "got other bytes" in refusal(lambda: case.source.load(case.told))

    def test_formats_of_xgboost(self, make: Any, refusal: Refusal) -> None:
        case = make("xgboost")
        other = Path(case.source.path).rename(Path(case.source.path).with_suffix(".model"))
        assert "expected a file .json or .ubj, got '.model'" in refusal(
            lambda: XgBoost(str(other)).load(TOLD)
        )
