from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from ensemble_kd.errors import UserError
from ensemble_kd.plan import make_plan
from ensemble_kd.stage import Stage
from ensemble_kd.strategies import BornAgain

LAST = Stage(
    name="student",
    student={"_target_": "small"},
    teachers=(),
    strategy={"_target_": "taught"},
    optimizers={"default": {"lr": 1}, "critic": {"lr": 2}},
    trainer={},
    data="",
    labelled_only=False,
    epochs=3,
    select="last",
    seed=7,
)
FIRST = {"_target_": "first"}


@pytest.mark.parametrize("generations", [1, 2, 4])
def test_each_generation_is_taught_by_the_last(generations: int) -> None:
    chain = BornAgain(FIRST, generations).stages(LAST)
    names = [f"generation/{number}" for number in range(generations)]
    assert [stage.name for stage in chain] == [*names, "student"]
    assert [stage.teachers for stage in chain] == [(), *((name,) for name in names)]
    assert [stage.strategy for stage in chain] == [FIRST] + [LAST.strategy] * generations
    assert all(stage.student == LAST.student for stage in chain)
    assert all(stage.epochs == LAST.epochs for stage in chain)


def test_dense_generations_are_taught_by_all_before() -> None:
    chain = BornAgain(FIRST, 3, dense=True).stages(LAST)
    names = ["generation/0", "generation/1", "generation/2"]
    assert [stage.teachers for stage in chain] == [tuple(names[:number]) for number in range(4)]


@pytest.mark.parametrize("dense", [False, True])
def test_the_teachers_of_the_run_teach_the_first_generation_only(dense: bool) -> None:
    taught = replace(LAST, teachers=("teacher/0", "teacher/1"))
    first, second, *_ = BornAgain(FIRST, 2, dense).stages(taught)
    assert first.teachers == ("teacher/0", "teacher/1")
    assert first.strategy == LAST.strategy
    assert first.optimizers == LAST.optimizers
    assert second.teachers == ("generation/0",)


def test_a_first_generation_without_teachers_has_one_player() -> None:
    first, second = BornAgain(FIRST, 1).stages(LAST)
    assert first.optimizers == {"default": {"lr": 1}}
    assert second.optimizers == LAST.optimizers


def test_every_generation_starts_from_weights_of_its_own() -> None:
    chain = BornAgain(FIRST, 3).stages(LAST)
    assert chain[-1].seed == LAST.seed
    assert len({stage.seed for stage in chain}) == 4
    assert all(stage.initial is None for stage in chain)


@pytest.mark.parametrize(
    ("generations", "members"),
    [(1, None), (2, ("generation/1", "student")), (3, ("generation/1", "generation/2", "student"))],
)
def test_the_ensemble_is_that_of_all_who_were_taught(
    generations: int, members: tuple[str, ...] | None
) -> None:
    mixtures = BornAgain(FIRST, generations).mixtures()
    assert mixtures == ({} if members is None else {"generations": members})


@pytest.mark.parametrize("generations", [0, -1])
def test_no_generations_are_refused(generations: int) -> None:
    with pytest.raises(ValueError, match=f"generations must be >= 1, got {generations}"):
        BornAgain(FIRST, generations)
    from ensemble_kd.config import compose

    with pytest.raises(UserError, match=r"strategy\.chain: generations must be >= 1"):
        make_plan(compose(["strategy=born_again", f"strategy.generations={generations}"]))


def test_in_a_run_each_follows_its_teacher_and_their_mean_is_reported(
    trained: Callable[..., Any],
) -> None:
    done = trained("strategy=born_again", "teacher=none", "epochs=8", "strategy.generations=2")
    names = ["generations", "generation/0", "generation/1", "student", "control/no_teacher"]
    assert list(done.networks) == names
    losses = {name for stage, name in done.curves if stage == "student"}
    assert losses == {"student/label", "student/soft", "student/val_accuracy"}
    assert ("generation/0", "student/soft") not in done.curves

    x = torch.cat([batch.inputs for batch in done.plan.data.val_dataloader()])
    with torch.no_grad():
        p = {name: network(x).softmax(-1) for name, network in done.networks.items()}
    torch.testing.assert_close(p["generations"], (p["generation/1"] + p["student"]) / 2)

    def divergence(name: str) -> float:
        """From the student's teacher."""
        teacher = p["generation/1"]
        return float((teacher * (teacher.log() - p[name].log())).sum(-1).mean())

    assert divergence("student") < 0.5 * divergence("control/no_teacher")
    assert not torch.equal(p["student"], p["generation/1"])
