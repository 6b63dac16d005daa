"""The benchmark of tables: what its teachers have seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from ensemble_kd.config import compose
from ensemble_kd.data import Arrays, InMemory
from ensemble_kd.plan import make_plan


@pytest.fixture
def tables(script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> Any:
    module = script("benchmarks/tables.py")
    monkeypatch.setattr(module, "ROUNDS", 2)
    return module


@pytest.mark.parametrize("kind", ["lightgbm", "sklearn"])
def test_teachers_see_the_training_split_and_nothing_else(
    kind: str, tables: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Any, Any]] = []

    def make(features: Any, labels: Any, seed: int, path: Path) -> None:
        seen.append((features, labels))
        path.touch()

    monkeypatch.setitem(tables.MAKERS, kind, make)
    file = tables.written(Path("files"), "breast cancer")
    tables.teachers(kind, file, 3)
    data = InMemory(Arrays(file), seed=3, batch_size=16, drop_last=False)
    rows = np.concatenate([batch.index.numpy() for batch in data.train_dataloader()])
    held = np.load(file)
    assert len(seen) == 3
    for features, labels in seen:
        assert np.array_equal(features, held["x"][np.sort(rows)])
        assert np.array_equal(labels, held["y"][np.sort(rows)])


@pytest.mark.parametrize("setting", [0, 1, 2])
def test_every_setting_can_be_planned(setting: int, tables: Any) -> None:
    asked = tables.overrides("breast cancer", [*tables.SETTINGS][setting], 0, Path("files"))
    plan = make_plan(compose(asked))
    assert list(plan.given) == ["teacher/0", "teacher/1", "teacher/2"]
    assert len({each.digest for each in plan.given.values()}) == 3
