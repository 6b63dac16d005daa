from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

from ensemble_kd.artefact import write_artefact
from ensemble_kd.config import compose
from ensemble_kd.data import InMemory
from ensemble_kd.errors import UserError
from ensemble_kd.export import constructor_of
from ensemble_kd.fingerprint import module_digest
from ensemble_kd.networks import Mlp
from ensemble_kd.plan import Objects, Plan, make_plan
from ensemble_kd.stage import Given, Stage, derived_seed
from ensemble_kd.types import Batch

SMALL = ("epochs=2", "teacher.members=[cnn_tiny,cnn_tiny]")


def planned(*overrides: str) -> Plan:
    return make_plan(compose([*SMALL, *overrides]))


def digests(plan: Plan) -> dict[str, str]:
    known: dict[str, str] = {}
    for stage in plan.stages:
        known[stage.name] = stage.digest(known)
    return known


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        ([], ["teacher/0", "teacher/1", "student", "control/no_teacher"]),
        (["controls=[]"], ["teacher/0", "teacher/1", "student"]),
        (
            ["strategy=assistant", "strategy.assistants=[cnn_small,mlp_small]"],
            [
                "teacher/0",
                "teacher/1",
                "assistant/0",
                "assistant/1",
                "student",
                "control/no_teacher",
            ],
        ),
        (["strategy=mutual"], ["teacher/0", "teacher/1", "student", "control/no_teacher"]),
    ],
)
def test_the_stages_of_a_run(overrides: Sequence[str], names: Sequence[str]) -> None:
    plan = planned(*overrides)
    assert [stage.name for stage in plan.stages] == names
    assert plan.teachers == ("teacher/0", "teacher/1")


def test_the_student_and_its_control_differ_only_in_their_teachers() -> None:
    stages = {stage.name: stage for stage in planned().stages}
    student, control = stages["student"], stages["control/no_teacher"]
    assert student.teachers == ("teacher/0", "teacher/1")
    assert control.teachers == ()
    same = {"name", "teachers", "strategy", "labelled_only"}
    for field in dataclasses.fields(Stage):
        if field.name not in same:
            assert getattr(student, field.name) == getattr(control, field.name), field.name


def test_networks_without_use_for_unlabelled_samples_see_labelled_ones_only() -> None:
    stages = {stage.name: stage for stage in planned().stages}
    assert stages["teacher/0"].labelled_only
    assert stages["control/no_teacher"].labelled_only
    assert not stages["student"].labelled_only


def test_mutual_learning_can_leave_the_teachers_out() -> None:
    plan = planned("strategy=mutual", "strategy.taught=false")
    assert plan.stages[-2].teachers == ()


def test_teachers_are_shared_by_the_strategies_of_a_sweep() -> None:
    one, other = digests(planned()), digests(planned("strategy=assistant"))
    assert one["teacher/0"] == other["teacher/0"]
    assert one["control/no_teacher"] == other["control/no_teacher"]
    assert one["student"] != other["student"]
    assert one["teacher/0"] != one["teacher/1"]


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "epochs=3",
        "batch_size=32",
        "objective.temperature=3",
        "optimizer.lr=0.02",
        "optimizer=sgd",
        "student=cnn_small",
        "select=best",
        "data.labelled=200",
        "teacher.epochs=3",
        "teacher.seed=5",
        "weighting=entropy",
    ],
)
def test_whatever_determines_the_student_changes_its_digest(override: str) -> None:
    assert digests(planned())["student"] != digests(planned(override))["student"]


@pytest.mark.parametrize(
    "override", ["logger=none", "report.plots=false", "paths.store=elsewhere", "controls=[]"]
)
def test_whatever_does_not_leaves_it_as_it_is(override: str) -> None:
    assert digests(planned())["student"] == digests(planned(override))["student"]


def test_planning_draws_nothing_from_the_callers_random_state() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    planned()
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("epochs=0", "epochs: expected an integer >= 1, got 0"),
        ("epochs=2.5", "epochs: expected an integer"),
        ("seed=-1", "seed: expected an integer >= 0, got -1"),
        ("batch_size=0", "batch_size"),
        ("select=test", "select: expected last or best, got 'test'"),
        ("controls=3", "controls: expected a list"),
        ("objective.temperature=0", r"objective\..*temperature must be"),
        ("objective.temperature=-2", r"objective\..*temperature must be"),
        ("objective.temperature=hot", r"objective\..*temperature: expected a number"),
        ("objective.label_weight=-1", r"objective\..*weight must be"),
        ("optimizer.lr=0", "optimizer: lr must be"),
        ("weighting=fixed", "weight"),
        ("teacher.members=[]", "teacher"),
        ("teacher.members=[cnn_tinny]", "no network 'cnn_tinny'.*'cnn_tiny'"),
        ("teacher.members=cnn_tiny", "expected a list of networks"),
        ("+data.classes=7", "data.classes: expected 10 as the data says, got 7"),
        ("student.classes=7", "student: expected 10 classes as in the data"),
        ("data.labelled=3", "labelled"),
        ("data.labelled=99999", "labelled"),
        ("+trainer.max_epochs=3", "trainer"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_written(override: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as refusal:
        planned(override)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("weights", ["[1,2,3]", "[0,0]", "[-1,2]"])
def test_weights_that_cannot_be_are_refused(weights: str) -> None:
    with pytest.raises(UserError, match="weights"):
        planned("weighting=fixed", f"weighting.weights={weights}")


def test_an_empty_chain_is_refused() -> None:
    with pytest.raises(UserError, match=r"strategy\.chain: assistants must name at least one"):
        planned("strategy=assistant", "strategy.assistants=[]")


def test_a_weighting_that_needs_labels_refuses_unlabelled_data() -> None:
    with pytest.raises(UserError, match=r"needs a label for every sample.*labelled=null"):
        planned("weighting=confidence")
    planned("weighting=confidence", "data.labelled=null")


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["select=best"], "select=best"),
        (["strategy=assistant", "strategy.assistants=auto"], "strategy.assistants=auto"),
    ],
    ids=["select", "assistants"],
)
def test_nothing_is_chosen_by_labels_that_are_not_there(
    overrides: Sequence[str], key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = InMemory.val_dataloader

    def without_labels(data: InMemory) -> list[Batch]:
        return [batch._replace(mask=batch.target < 0) for batch in served(data)]

    monkeypatch.setattr(InMemory, "val_dataloader", without_labels)
    with pytest.raises(UserError, match=f"^{re.escape(key)}: expected labels in the validation"):
        make_plan(compose(["teacher=single", *overrides]))


def test_a_weighting_is_made_for_the_classes_of_the_data() -> None:
    stages = {stage.name: stage for stage in planned("weighting=learned").stages}
    strategy = stages["student"].strategy
    assert not isinstance(strategy, Given)
    assert strategy["weighting"]["classes"] == 10


def test_given_networks_stand_where_nodes_would() -> None:
    torch.manual_seed(0)
    student = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    teachers = [nn.Sequential(nn.Flatten(), nn.Linear(64, 10)) for _ in range(2)]
    plan = make_plan(compose(["epochs=1"]), objects=Objects(Given(student), None, teachers))
    assert [stage.name for stage in plan.stages] == ["student", "control/no_teacher"]
    assert list(plan.given) == ["teacher/0", "teacher/1"]
    assert plan.given["teacher/0"].digest == module_digest(teachers[0])


def test_a_given_teacher_with_other_classes_is_named() -> None:
    student = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(64, 7))
    with pytest.raises(UserError, match=r"teacher/0: expected 10 classes.*7"):
        make_plan(compose(["epochs=1"]), objects=Objects(Given(student), None, [teacher]))


def test_module_digests_follow_weights_and_structure() -> None:
    torch.manual_seed(0)
    one, other = nn.Linear(3, 2), nn.Linear(3, 2)
    assert module_digest(one) != module_digest(other)
    other.load_state_dict(one.state_dict())
    assert module_digest(one) == module_digest(other)
    with torch.no_grad():
        other.bias[0] += 1e-6
    assert module_digest(one) != module_digest(other)


def test_derived_seeds_differ_by_name_and_seed_and_stay_the_same() -> None:
    seeds = {derived_seed(seed, f"teacher/{k}") for seed in range(10) for k in range(10)}
    assert len(seeds) == 100
    assert derived_seed(0, "teacher/0") == derived_seed(0, "teacher/0")
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_a_given_teacher_without_its_history_cannot_be_followed(tmp_path: Path) -> None:
    network = Mlp([1, 8, 8], 10, [4])
    write_artefact(tmp_path, network, constructor_of(network), {"digest": "0" * 64})
    with pytest.raises(UserError, match="teacher/0: the strategy follows a teacher"):
        planned("strategy=progressive", f"teacher.members=[{{artefact:{tmp_path}}}]")


def test_a_source_is_named_among_the_members() -> None:
    with pytest.raises(UserError, match=r"source: this group is not chosen by itself"):
        planned("source=onnx", "source.path=model.onnx")
