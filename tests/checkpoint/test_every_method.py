"""Every strategy, objective and weighting goes on to the same bits, wherever it was cut off.

What keeps something in a plain attribute, where no checkpoint finds it, fails here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ensemble_kd.config import compose
from ensemble_kd.groups import options
from ensemble_kd.paths import conf_dir
from ensemble_kd.plan import make_plan

GROUPS = options([conf_dir()])
SHORT = (
    "epochs=2",
    "teacher.epochs=1",
    "batch_size=16",
    "+trainer.limit_train_batches=3",
    "+trainer.limit_val_batches=1",
    "paths.data=..",
    "controls=[]",
)
SMALL = ("teacher.members=[cnn_tiny,cnn_tiny]", "data.val_share=0.45", "data.test_share=0.45")
TEXTS = (
    *("data=sst2", "data.tokenizer.size=60", "data.length=12"),
    *("student=bert_tiny", "teacher.members=[bert_mini]"),
)
NEEDED = {
    "objective=mobilebert": (*TEXTS, "student=mobilebert", "teacher.members=[ib_bert]"),
    "strategy=multi_task": ("data=digits_tasks",),
    "strategy=self_distillation": (*TEXTS, "student=fastbert", "teacher.members=[]"),
    "weighting=confidence": (*SMALL, "data.labelled=null"),
    "weighting=fixed": (*SMALL, "weighting.weights=[1,2]"),
    "weighting=reinforced": (*SMALL, "data.labelled=null"),
    **{
        f"objective={name}": TEXTS
        for name in ("distilbert", "minilm", "pkd", "simplified_tinybert", "tinybert")
    },
}
"""What an option cannot do without, in place of small teachers of digits."""


@pytest.mark.parametrize(
    "option",
    [
        f"{group}={name}"
        for group in ("strategy", "objective", "weighting")
        for name in GROUPS[group]
    ],
)
@pytest.mark.filterwarnings("ignore:.*limit_val_batches")
def test_it_goes_on_to_the_same_bits(
    option: str, goes_on: Callable[..., None], text_root: Path
) -> None:
    plan = make_plan(compose([*SHORT, *NEEDED.get(option, SMALL), option]))
    goes_on(plan)
