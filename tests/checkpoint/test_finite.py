"""A loss that stops being finite is named at once, with its epoch and its batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ensemble_kd.config import compose
from ensemble_kd.engine import Engine
from ensemble_kd.errors import UserError
from ensemble_kd.finite import EVERY, Watch
from ensemble_kd.objectives import Soft
from ensemble_kd.plan import make_plan
from ensemble_kd.store import Store


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_on_the_cpu_at_once(value: float) -> None:
    watch = Watch()
    watch.note({"student/label": torch.tensor(1.0)}, 0, 0)
    with pytest.raises(UserError, match=rf"'student/soft' became {value} in epoch 3, batch 5: "):
        watch.note({"student/label": torch.tensor(1.0), "student/soft": torch.tensor(value)}, 2, 4)


class Away(Tensor):
    """Stands for a scalar on a graphics card."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("cuda")


def away(value: float) -> Tensor:
    return torch.tensor(value).as_subclass(Away)


@pytest.mark.parametrize("batch", [0, 7, EVERY - 1])
def test_elsewhere_now_and_then_and_then_the_first(batch: int) -> None:
    watch = Watch()
    values = [math.inf if n == batch else math.nan if n > batch else 1.0 for n in range(EVERY)]
    for number, value in enumerate(values[:-1]):
        watch.note({"a": away(1.0), "b": away(value)}, 0, number, "do that, ")
    with pytest.raises(UserError, match=rf"'b' became inf in epoch 1, batch {batch + 1}: ") as said:
        watch.note({"a": away(1.0), "b": away(values[-1])}, 0, EVERY - 1, "do that, ")
    assert "set optimizer.clip, do that, or look at the data" in str(said.value)
    watch.note({"a": away(math.nan)}, 1, 0)
    with pytest.raises(UserError, match=r"'a' became nan in epoch 2, batch 1: "):
        watch.look()
    watch.look()


@pytest.mark.filterwarnings("ignore:.*limit_val_batches")
def test_the_last_good_checkpoint_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plan = make_plan(
        compose(
            [
                *("epochs=3", "teacher.epochs=1", "batch_size=16", "controls=[]"),
                *("+trainer.limit_train_batches=3", "+trainer.limit_val_batches=1"),
                "teacher.members=[cnn_tiny]",
            ]
        )
    )
    calls = 0
    soft: Callable[..., Tensor] = Soft.forward

    def breaking(self: Soft, *arguments: object) -> Tensor:
        nonlocal calls
        calls += 1
        said = soft(self, *arguments)
        return said * math.nan if calls > 4 else said

    store = Store(tmp_path / "store")
    monkeypatch.setattr(Soft, "forward", breaking)
    with pytest.raises(UserError) as refusal:
        Engine(plan, store, tmp_path, False, every_n_steps=1).products()
    assert str(refusal.value).startswith(
        "the loss term 'student/soft' became nan in epoch 2, batch 2: "
    )
    assert "\n" not in str(refusal.value)
    (unfinished,) = (store.root / ".unfinished").iterdir()
    newest = max((unfinished / "checkpoint").iterdir())
    held = torch.load(newest, weights_only=True)
    assert (held["epoch"], held["ensemble_kd"]["batch"]) == (1, 1)
    assert all(value.isfinite().all() for value in held["state_dict"].values())
