"""Live teachers that answer in the fastest way that will do."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ensemble_kd.config import compose
from ensemble_kd.engine import Engine
from ensemble_kd.errors import UserError
from ensemble_kd.networks import Cnn, Mlp
from ensemble_kd.plan import make_plan
from ensemble_kd.store import Store
from ensemble_kd.teachers import Ensemble, Frozen, LabelSpace, Quick, covered
from ensemble_kd.types import Batch, Progress

START = Progress(0, 0, 0.0)


@pytest.fixture
def teachers() -> list[Frozen]:
    """Two unlike networks, one of them with classes of its own."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        networks: list[nn.Module] = [Cnn((1, 8, 8), 10, widths=(8, 16)), Mlp((1, 8, 8), 2)]
    names = [str(number) for number in range(10)]
    space = LabelSpace(covered(["3", "7"], names), 10)
    return [Frozen(networks[0]), Frozen(networks[1], [], space)]


def batch(size: int = 16) -> Batch:
    generator = torch.Generator().manual_seed(size)
    inputs = torch.randn(size, 1, 8, 8, generator=generator)
    return Batch(inputs, torch.zeros(size, dtype=torch.int64), torch.arange(size))


@pytest.mark.parametrize("allowed", ["exact", "fast"])
def test_they_say_what_they_would_say_otherwise(teachers: list[Frozen], allowed: Any) -> None:
    before = [copy.deepcopy(teacher.network.state_dict()) for teacher in teachers]
    lines: list[str] = []
    quick = Quick(teachers, allowed, lines.append)
    state = torch.random.get_rng_state()
    for size in (16, 5):
        live = Ensemble(teachers)(batch(size), START)
        said = quick(batch(size), START)
        for mine, other in zip(said, live, strict=True):
            if allowed == "exact":
                assert torch.equal(mine.logits, other.logits)
            else:
                torch.testing.assert_close(mine.logits, other.logits, rtol=1e-3, atol=1e-4)
            assert (mine.groups is None) == (other.groups is None)
            assert not mine.logits.requires_grad
    assert len(lines) == 1
    assert "runtime" in lines[0]
    assert torch.equal(state, torch.random.get_rng_state())
    for teacher, kept in zip(teachers, before, strict=True):
        assert all(torch.equal(kept[k], v) for k, v in teacher.network.state_dict().items())


def test_features_need_the_networks_themselves() -> None:
    tapped = Frozen(Cnn((1, 8, 8), 10, widths=(4,)), ["stages"])
    with pytest.raises(ValueError, match="must have no taps"):
        Quick([tapped], "exact", print)


RUN = ("teacher.members=[cnn_small]", "epochs=2", "teacher.epochs=1", "controls=[]")


def student(*overrides: str) -> Any:
    plan = make_plan(compose([*RUN, *overrides]))
    return Engine(plan, Store(Path("store")), Path("run"), logger=False).products()["student"]


def test_exact_is_the_same_student_and_fast_one_of_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain = student()
    assert "runtime" not in capsys.readouterr().out
    exact = student("teacher.runtime=exact", "seed=0")
    assert exact.artefact.digest == plain.artefact.digest
    fast = student("teacher.runtime=fast")
    assert "teachers: runtime" in capsys.readouterr().out
    assert fast.artefact.digest != plain.artefact.digest
    mine, other = fast.learner.student.state_dict(), plain.learner.student.state_dict()
    for key, value in other.items():
        torch.testing.assert_close(mine[key], value, rtol=1e-2, atol=1e-3)


def test_a_runtime_that_is_none_is_one_line() -> None:
    with pytest.raises(
        UserError, match=r"teacher\.runtime: expected auto, plain, exact or fast, got 'q'"
    ):
        make_plan(compose(["teacher.runtime=q"]))
