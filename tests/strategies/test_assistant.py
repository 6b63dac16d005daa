from __future__ import annotations

import pytest

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
