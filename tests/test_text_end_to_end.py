"""Methods for texts on real sentences: each of these fails if the method does nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ensemble_kd.assessment import named_predictors
from ensemble_kd.config import compose
from ensemble_kd.engine import Engine
from ensemble_kd.evaluation import Evaluation, Measured
from ensemble_kd.plan import make_plan
from ensemble_kd.store import Store

# Before any test: tests have no settings from outside.
ROOT = Path(os.environ.get("ENSEMBLE_KD_DATA", Path(__file__).parents[2] / "shared" / "data"))
QUICK = ("++data.tokenizer.size=2000", "data.length=24", "batch_size=32", "optimizer.lr=0.003")
LSTM = (
    *("student=bilstm", "student.embedding=32", "student.width=32", "student.hidden=32"),
    *("teacher=single", "teacher.members=['${student}']", "optimizer.lr=0.005", "epochs=6"),
)
PAIR = ("student", "ensemble")

pytestmark = pytest.mark.slow


@pytest.fixture
def measured() -> Callable[..., Measured]:
    """Trains what some overrides mean, and measures it on the validation split."""
    if not (ROOT / "sst2").is_dir():
        pytest.skip(f"no real data sets in {ROOT}; set ENSEMBLE_KD_DATA")

    def measure(*overrides: str, pairs: tuple[tuple[str, str], ...] = ()) -> Measured:
        plan = make_plan(compose([*QUICK, *overrides, f"paths.data={ROOT}"]))
        products = Engine(plan, Store(Path("store")), Path("run"), logger=False).products()
        predictors = named_predictors(plan, products)
        return Evaluation().measure(predictors, plan.data.val_dataloader(), plan.classes, pairs)

    return measure


def test_a_student_learns_from_what_its_teacher_says_and_from_nothing_else(
    measured: Callable[..., Measured],
) -> None:
    found = measured(
        *LSTM,
        *("data=sst2", "data.source.limit=2000", "controls=[]"),
        *("objective=mse_logits", "objective.label_weight=0"),
        pairs=(PAIR,),
    )
    # A network that learned nothing is right, and agrees, half of the time.
    assert found.predictors["student"].accuracy > 0.6
    assert found.pairs[PAIR].agreement > 0.6


def test_tokens_learn_from_what_the_teacher_says_of_each(measured: Callable[..., Measured]) -> None:
    found = measured(
        *LSTM,
        *("data=wnut17", "data.source.limit=600", "controls=[]", "epochs=4"),
        *("objective=kd", "objective.label_weight=0", "objective.temperature=1"),
        pairs=(PAIR,),
    )
    # A network that learned nothing is about log 13 = 2.6 nats away.
    assert found.pairs[PAIR].kl < 0.2


def test_earlier_classifiers_come_nearer_to_the_last(measured: Callable[..., Measured]) -> None:
    pairs = (("exit/1", "student"), ("exit/2", "student"))
    small = ("width=32", "heads=2", "inner=64", "layers=3", "exit_width=16", "dropout=0")
    common = (
        *("data=sst2", "data.source.limit=1500", "teacher=none", "controls=[]", "epochs=4"),
        *("student=fastbert", "strategy=self_distillation", "strategy.share=0.5"),
        *(f"student.{size}" for size in small),
    )
    found = measured(*common, pairs=pairs)
    assert found.predictors["student"].accuracy > 0.6
    assert min(found.pairs[pair].agreement for pair in pairs) > 0.85
