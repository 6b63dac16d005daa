"""The point of it all, on real data: students with teachers beat the same students without."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path

import pytest

from ensemble_kd.assessment import named_predictors
from ensemble_kd.config import compose
from ensemble_kd.engine import Engine
from ensemble_kd.plan import make_plan
from ensemble_kd.store import Store
from ensemble_kd.training import accuracy

SEEDS = (0, 1, 2)
SHORT = (
    *("epochs=10", "teacher.epochs=8", "batch_size=32"),
    "teacher.members=[cnn_medium,cnn_medium]",
)
Gain = Callable[..., float]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One store for all strategies: teachers and controls are trained once."""
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture
def gain(store: Store) -> Gain:
    """Mean over the seeds of the student's validation accuracy minus the control's."""

    def measure(*overrides: str) -> float:
        gains = []
        for seed in SEEDS:
            plan = make_plan(compose([*SHORT, *overrides, f"seed={seed}"]))
            products = Engine(plan, store, Path("run"), logger=False).products()
            networks = named_predictors(plan, products)
            known = {
                name: accuracy(networks[name], plan.data.val_dataloader())
                for name in ("student", "control/no_teacher")
            }
            gains.append(known["student"] - known["control/no_teacher"])
        return statistics.fmean(gains)

    return measure


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ("strategy=parallel",),
        ("strategy=assistant", "strategy.assistants=[cnn_small]"),
        ("strategy=mutual",),
    ],
    ids=["parallel", "assistant", "mutual"],
)
def test_the_student_beats_its_control_on_digits(gain: Gain, overrides: tuple[str, ...]) -> None:
    assert gain(*overrides) > 0.01
