from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from ensemble_kd.config import compose
from ensemble_kd.errors import UserError
from ensemble_kd.export import count_parameters
from ensemble_kd.objectives import Virtual
from ensemble_kd.plan import Plan, make_plan
from ensemble_kd.stage import Stage
from ensemble_kd.strategies import TeacherFree
from ensemble_kd.training import Learner, assemble

LAST = Stage(
    name="student",
    student={"_target_": "small"},
    teachers=(),
    strategy={"_target_": "taught"},
    optimizers={"default": {}},
    trainer={},
    data="",
    labelled_only=False,
    epochs=3,
    select="last",
    seed=7,
)
FIRST = {"_target_": "first"}


def test_a_network_teaches_itself_from_new_weights() -> None:
    first, second = TeacherFree(FIRST).stages(LAST)
    assert (first.name, first.teachers, first.strategy) == ("generation/0", (), FIRST)
    assert (second.name, second.teachers) == ("student", ("generation/0",))
    assert second.strategy == LAST.strategy
    assert first.student == second.student
    assert first.seed != second.seed
    assert second.initial is None


def test_a_virtual_teacher_needs_one_stage() -> None:
    assert TeacherFree(FIRST, "virtual").stages(LAST) == (LAST,)


def test_there_is_no_other_variant() -> None:
    with pytest.raises(ValueError, match="variant must be one of self, virtual, got 'reversed'"):
        TeacherFree(FIRST, "reversed")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"strategy\..*'strategy\.terms\.reversed' not found"):
        planned("strategy=teacher_free", "strategy.variant=reversed")


def planned(*overrides: str) -> Plan:
    return make_plan(compose([*overrides, "epochs=2"]))


def learners(plan: Plan) -> dict[str, Learner]:
    return {stage.name: assemble(stage) for stage in plan.stages}


def test_all_four_by_config_alone() -> None:
    """Who teaches, how large it is beside the student, and how long it was trained."""
    own = planned("strategy=teacher_free", "teacher=none")
    assert [stage.name for stage in own.stages] == ["generation/0", "student", "control/no_teacher"]

    virtual = planned("strategy=teacher_free", "teacher=none", "strategy.variant=virtual")
    assert [stage.name for stage in virtual.stages] == ["student", "control/no_teacher"]
    terms: Any = learners(virtual)["student"].strategy
    assert isinstance(terms.lesson.terms["virtual"].objective, Virtual)

    backwards = learners(planned("experiment=reversed_kd"))
    sizes = {name: count_parameters(learner.student) for name, learner in backwards.items()}
    assert sizes["teacher/0"] < 0.2 * sizes["student"]

    defective = planned("experiment=defective_kd")
    epochs = {stage.name: stage.epochs for stage in defective.stages}
    assert epochs == {"teacher/0": 1, "student": 2, "control/no_teacher": 2}
    again = {name: count_parameters(part.student) for name, part in learners(defective).items()}
    assert again["teacher/0"] == again["student"]


def test_in_a_run_the_student_follows_its_own_earlier_self(trained: Callable[..., Any]) -> None:
    done = trained("strategy=teacher_free", "teacher=none", "epochs=10")
    assert list(done.networks) == ["generation/0", "student", "control/no_teacher"]
    x = torch.cat([batch.inputs for batch in done.plan.data.val_dataloader()])
    with torch.no_grad():
        said = {name: network(x).log_softmax(-1) for name, network in done.networks.items()}

    def divergence(name: str) -> float:
        teacher = said["generation/0"]
        return float((teacher.exp() * (teacher - said[name])).sum(-1).mean())

    assert divergence("student") < 0.85 * divergence("control/no_teacher")


def test_in_a_run_the_virtual_teacher_makes_all_wrong_classes_alike(
    trained: Callable[..., Any],
) -> None:
    settings = ["strategy=teacher_free", "strategy.variant=virtual", "teacher=none", "epochs=8"]
    done = trained(*settings, "strategy.by_hand.squared_temperature=true")
    assert ("student", "student/virtual") in done.curves
    x = torch.cat([batch.inputs for batch in done.plan.data.val_dataloader()])

    def unevenness(name: str) -> float:
        """How far the logits below the largest are from each other, in units of the margin."""
        with torch.no_grad():
            top, *others = done.networks[name](x).sort(descending=True).values.unbind(-1)
        rest = torch.stack(others)
        return float((rest.std(dim=0) / (top - rest.mean(dim=0))).mean())

    assert unevenness("student") < 0.9 * unevenness("control/no_teacher")
    assert done.accuracies["student"] > 0.6
