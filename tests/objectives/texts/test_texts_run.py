"""Features of texts through whole runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ensemble_kd.config import compose
from ensemble_kd.engine import Engine
from ensemble_kd.plan import make_plan
from ensemble_kd.store import Store


@pytest.mark.filterwarnings("ignore:.*limit_val_batches")
@pytest.mark.parametrize(
    ("objective", "weighting"), [("tinybert", "entropy"), ("minilm", "uniform"), ("pkd", "learned")]
)
def test_features_of_texts_with_a_class_per_token(
    objective: str, weighting: str, text_root: Path
) -> None:
    overrides = [
        "data=wnut17",
        "data.tokenizer.size=60",
        "data.length=12",
        f"paths.data={text_root}",
        "student=bert_tiny",
        "teacher.members=[bert_mini,bert_mini]",
        f"objective={objective}",
        f"weighting={weighting}",
        "epochs=1",
        "teacher.epochs=1",
        "batch_size=16",
        "controls=[]",
        "+trainer.limit_train_batches=2",
        "+trainer.limit_val_batches=0",
    ]
    plan = make_plan(compose(overrides))
    products = Engine(plan, Store(Path("store")), Path("run"), logger=False).products()
    for parameter in products["student"].learner.deliverable().parameters():
        assert torch.isfinite(parameter).all()
