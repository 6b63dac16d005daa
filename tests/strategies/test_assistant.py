from __future__ import annotations

import dataclasses

import pytest

from ensemble_kd.config import compose
from ensemble_kd.plan import make_plan
from ensemble_kd.stage import Stage
from ensemble_kd.strategies import Assistants

LAST = Stage(
    name="student",
    student={"_target_": "small"},
    teachers=("teacher/0", "teacher/1"),
    strategy={},
    optimizers={},
    trainer={},
    data="",
    labelled_only=False,
    epochs=3,
    select="last",
    seed=7,
)


@pytest.mark.parametrize("length", [1, 2, 5])
def test_each_learns_from_the_one_before(length: int) -> None:
    networks = [{"_target_": f"assistant{number}"} for number in range(length)]
    chain = Assistants(networks).stages(LAST)
    assert [stage.name for stage in chain] == [f"assistant/{n}" for n in range(length)] + [
        "student"
    ]
    assert [stage.student for stage in chain] == [*networks, LAST.student]
    taught_by = [stage.teachers for stage in chain]
    assert taught_by[0] == LAST.teachers
    assert taught_by[1:] == [(f"assistant/{n}",) for n in range(length)]


def test_dense_learns_from_all_before() -> None:
    chain = Assistants([{"_target_": "a"}, {"_target_": "b"}], dense=True).stages(LAST)
    assert [stage.teachers for stage in chain] == [
        LAST.teachers,
        (*LAST.teachers, "assistant/0"),
        (*LAST.teachers, "assistant/0", "assistant/1"),
    ]


def test_the_student_keeps_its_seed_and_assistants_have_their_own() -> None:
    chain = Assistants([{"_target_": "a"}, {"_target_": "a"}]).stages(LAST)
    seeds = [stage.seed for stage in chain]
    assert seeds[-1] == LAST.seed
    assert len(set(seeds)) == 3


def test_an_empty_chain_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one network, got an empty list"):
        Assistants([])


def test_dropping_sources_replaces_the_weighting_of_every_stage() -> None:
    last = dataclasses.replace(LAST, strategy={"_target_": "turns", "weighting": {"p": 1}})
    networks = [{"_target_": "a"}, {"_target_": "b"}]
    chain = Assistants(networks, dense=True, drop=0.25).stages(last)
    for stage in chain:
        assert stage.strategy == {
            "_target_": "turns",
            "weighting": {
                "_target_": "ensemble_kd.weightings.Dropped",
                "p": 0.75,
                "seed": stage.seed,
            },
        }
    assert last.strategy == {"_target_": "turns", "weighting": {"p": 1}}


@pytest.mark.parametrize("drop", [-0.1, 1.0])
def test_a_probability_to_drop_is_checked(drop: float) -> None:
    with pytest.raises(ValueError, match=r"drop must be in \[0, 1\)"):
        Assistants([{"_target_": "a"}], drop=drop)


def test_a_dropping_chain_is_planned_from_the_configuration() -> None:
    chosen = ["strategy=assistant", "strategy.dense=true", "strategy.drop=0.25"]
    plan = make_plan(compose([*chosen, "teacher.members=[cnn_tiny]", "controls=[]"]))
    taught = [stage for stage in plan.stages if stage.teachers]
    assert [stage.strategy["weighting"]["p"] for stage in taught] == [0.75, 0.75]  # type: ignore[index]
