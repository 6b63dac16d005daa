"""What the student is held against: stages that depend on nothing that is judged."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from ensemble_kd.artefact import write_artefact
from ensemble_kd.config import compose
from ensemble_kd.controls import at_own_layers, of_one
from ensemble_kd.errors import UserError
from ensemble_kd.export import constructor_of
from ensemble_kd.groups import options
from ensemble_kd.networks import Mlp
from ensemble_kd.objectives import Label, PseudoLabel, Soft
from ensemble_kd.paths import conf_dir
from ensemble_kd.plan import Plan, make_plan
from ensemble_kd.stage import Stage
from ensemble_kd.strategies import Parallel
from ensemble_kd.training import assemble
from ensemble_kd.weightings import Uniform

NAMES = (
    "no_teacher",
    "label_smoothing",
    "pseudo_label",
    "single_teacher",
    "random_teacher",
    "shuffled_teacher",
)
ALL = f"controls=[{','.join(NAMES)}]"
STAGES = (
    "control/no_teacher",
    "control/label_smoothing",
    "control/pseudo_label",
    "control/single_teacher/0",
    "control/single_teacher/1",
    "control/random_teacher/untrained",
    "control/random_teacher",
    "control/shuffled_teacher",
)
OF_LABELS = set(STAGES[:2])
OF_TWO = ("epochs=2", "teacher.epochs=1", "teacher.members=[cnn_small,cnn_tiny]")


@cache
def planned(*overrides: str) -> Plan:
    return make_plan(compose([*OF_TWO, ALL, *overrides]))


def by_name(plan: Plan) -> dict[str, Stage]:
    return {stage.name: stage for stage in plan.stages}


@cache
def digests(*overrides: str) -> dict[str, str]:
    plan = planned(*overrides)
    known = {name: teacher.digest for name, teacher in plan.given.items()}
    for stage in plan.stages:
        known[stage.name] = stage.digest(known)
    return known


def strategy_of(stage: Stage) -> Parallel:
    strategy = assemble(stage).strategy
    assert isinstance(strategy, Parallel)
    return strategy


def objectives_of(stage: Stage) -> dict[str, Any]:
    return {name: term.objective for name, term in strategy_of(stage).lesson.terms.items()}


def test_every_control_is_one_of_these() -> None:
    assert set(options([conf_dir()])["control"]) == set(NAMES)
    assert all(options([conf_dir()])["control"].values())


def test_the_stages_and_what_they_share_with_the_student() -> None:
    """Strategy and teachers apart, all of them are what the student's stage is."""
    plan = planned("strategy=adversarial", "strategy.taught=true", "optimizer.lr=0.01")
    stages = by_name(plan)
    assert tuple(stages)[3:] == STAGES
    taught_by = {name: stages[name].teachers for name in STAGES}
    both = ("teacher/0", "teacher/1")
    assert list(taught_by.values()) == [
        *((), (), both, ("teacher/0",), ("teacher/1",), ()),
        *(("control/random_teacher/untrained",), both),
    ]
    student = stages["student"]
    assert set(student.optimizers) == {"default", "critic", "generator"}
    own = {"name", "teachers", "strategy", "optimizers", "labelled_only", "ensemble"}
    for name in set(STAGES) - {"control/random_teacher/untrained"}:
        for field in dataclasses.fields(Stage):
            if field.name not in own:
                assert getattr(stages[name], field.name) == getattr(student, field.name), name
        assert stages[name].optimizers == {"default": student.optimizers["default"]}
        assert isinstance(strategy_of(stages[name]).lesson.weighting, Uniform)
        assert stages[name].labelled_only == (name in OF_LABELS)


def test_what_they_match() -> None:
    stages = by_name(planned("objective.temperature=3"))
    smoothed = objectives_of(stages["control/label_smoothing"])
    assert [type(each) for each in smoothed.values()] == [Label]
    assert smoothed["label"].smoothing == 0.1
    assert objectives_of(stages["control/no_teacher"])["label"].smoothing == 0.0
    hard = objectives_of(stages["control/pseudo_label"])
    assert [type(each) for each in hard.values()] == [PseudoLabel]
    for name in ("single_teacher/1", "random_teacher", "shuffled_teacher"):
        soft = objectives_of(stages[f"control/{name}"])
        assert [type(each) for each in soft.values()] == [Label, Soft]
        assert soft["soft"].temperature(0.0) == 3.0


@pytest.mark.parametrize(
    "other",
    [
        ("strategy=kdcl",),  # its student does not hear the teachers
        ("strategy=annealing", "weighting=entropy"),  # it brings terms of its own
    ],
    ids=str,
)
def test_they_are_trained_once_for_all_strategies_and_weightings(other: Sequence[str]) -> None:
    one, two = digests(), digests(*other)
    assert one["student"] != two["student"]
    assert {name: two[name] for name in STAGES} == {name: one[name] for name in STAGES}
    assert len({one[name] for name in STAGES}) == len(STAGES)


@pytest.mark.parametrize(
    ("other", "shared"),
    [
        (
            ("objective.temperature=3",),
            {*OF_LABELS, "control/pseudo_label", "control/random_teacher/untrained"},
        ),
        (
            ("teacher.members=[cnn_small,mlp_small]", "teacher.epochs=2"),
            {*OF_LABELS, "control/random_teacher", "control/random_teacher/untrained"},
        ),
        (("seed=1",), set()),
    ],
    ids=["objective", "teachers", "seed"],
)
def test_what_else_they_depend_on(other: Sequence[str], shared: set[str]) -> None:
    one, two = digests(), digests(*other)
    assert {name for name in STAGES if one[name] == two[name]} == shared


def test_with_one_teacher_in_parallel_it_is_the_student_itself() -> None:
    one = digests("teacher.members=[cnn_tiny]", "controls=[single_teacher]")
    assert one["control/single_teacher/0"] == one["student"]


def test_layers_that_are_listed_for_each_teacher() -> None:
    listed = ("objective=hint", "objective.teacher_layers=[[stages.1],[stages.0]]")
    stages = by_name(planned(*listed, "objective.student_layers=[stages.0]"))

    def taps(name: str) -> tuple[str, ...]:
        hint = objectives_of(stages[f"control/{name}"])["hint"]
        hint.layers.check_count(len(stages[f"control/{name}"].teachers))
        return tuple(hint.teacher_taps(0))

    assert taps("single_teacher/0") == ("stages.1",)
    assert taps("single_teacher/1") == ("stages.0",)
    assert taps("random_teacher") == ("stages.1",)
    assert taps("shuffled_teacher") == ("stages.1",)


def test_only_lists_of_lists_are_taken_apart() -> None:
    node = {"a": [{"student": ["x"], "teachers": [["y"], ["z"]]}], "teachers": ["y", "z"], "b": 1}
    taken = {"a": [{"student": ["x"], "teachers": [["z"]]}], "teachers": ["y", "z"], "b": 1}
    assert of_one(node, 1) == taken
    assert of_one(node, 7) == node  # whoever looks for the layers says what is wrong
    own = {"a": [{"student": ["x"], "teachers": ["x"]}], "teachers": ["y", "z"], "b": 1}
    assert at_own_layers(node) == own


def test_the_untrained_teacher_is_like_the_first_one_that_is_trained() -> None:
    classes = '[["0","1"],["2","3","4"]]'
    members = f"teacher.members=[{{network: cnn_small, classes: {classes}}},cnn_tiny]"
    plan = planned(members, "controls=[random_teacher]", "initial={teacher: 1}")
    stages = by_name(plan)
    untrained = stages["control/random_teacher/untrained"]
    first = assemble(stages["teacher/0"]).student
    network = assemble(untrained).student
    assert type(network) is type(first)
    assert untrained.student == {**stages["teacher/0"].student, "classes": 10}  # type: ignore[dict-item]
    assert untrained.epochs == 0
    assert untrained.covered is None
    assert untrained.origin is None
    assert stages["student"].origin is not None
    assert stages["control/random_teacher"].origin == stages["student"].origin
    assert untrained.seed not in {stage.seed for stage in plan.stages if stage != untrained}


def test_given_teachers_and_a_network_like_the_student(tmp_path: Path) -> None:
    """Features are then compared where the student has them, whatever the teachers look like."""
    torch.manual_seed(0)
    given = Mlp([1, 8, 8], 10, [12])
    write_artefact(tmp_path, given, constructor_of(given), {"digest": "0" * 64})
    members = f"teacher.members=[{{artefact: {tmp_path}}}]"
    hint = ("objective=hint", "objective.teacher_layers=[layers.0]")
    stages = by_name(planned(members, *hint, "objective.student_layers=[stages.1]"))
    untrained = stages["control/random_teacher/untrained"]
    assert untrained.student == stages["student"].student
    assert untrained.seed != stages["student"].seed
    hint_term = objectives_of(stages["control/random_teacher"])["hint"]
    assert hint_term.teacher_taps(0) == ("stages.1",)


def test_a_control_of_ones_own(own_folder: Path) -> None:
    folder = own_folder / "conf" / "control"
    folder.mkdir(parents=True)
    own = (conf_dir() / "control" / "label_smoothing.yaml").read_text().replace("0.1", "0.3")
    (folder / "smoother.yaml").write_text(own)
    node = "{name: slow, _target_: ensemble_kd.controls.Alone, _recursive_: false, "
    listed = f"controls=[smoother,{node}strategy: '${{alone}}'}}]"
    config = compose(["teacher=none", "strategy=kdcl", listed], [folder.parent])
    stages = by_name(make_plan(config))
    assert [name for name in stages if name != "student"] == ["control/smoother", "control/slow"]
    assert objectives_of(stages["control/smoother"])["label"].smoothing == 0.3


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["controls=3"], r"^controls: expected a list such as \[no_teacher\], got 3"),
        (["~controls"], "^controls: expected a list"),
        (["controls=[no_techer]"], "^controls: no control 'no_techer'.*did you mean 'no_teacher'"),
        (["controls=[no_teacher,no_teacher]"], "^controls: .*got 'no_teacher' twice"),
        (["controls=[{_target_: x}]"], r"^controls: .*with name .*got {'_target_': 'x'}"),
        (["controls=[{name: a/b, _target_: x}]"], r"^controls: .*with name .*got"),
        (
            ["controls=[{name: a, _target_: ensemble_kd.objectives.Label}]"],
            r"^controls\.a: expected a control, got Label",
        ),
        (
            ["controls=[{name: a, _target_: ensemble_kd.controls.Alone}]"],
            r"^controls\.a\.strategy: Alone needs it",
        ),
        (["control=no_teacher"], r"^control: .*controls=\[no_teacher,label_smoothing\]"),
        *(
            (
                [f"controls=[{name}]", "teacher.members=[]", "strategy=kdcl"],
                f"^controls: control/{name} needs teachers, and this run has none",
            )
            for name in ("pseudo_label", "single_teacher", "shuffled_teacher")
        ),
    ],
    ids=str,
)
def test_a_mistake_is_one_line(overrides: Sequence[str], words: str) -> None:
    with pytest.raises(UserError, match=words) as refusal:
        planned(*overrides)
    assert "\n" not in str(refusal.value)


def test_tokens_with_classes_cannot_be_shuffled(text_root: Path) -> None:
    data = ("data=wnut17", f"paths.data={text_root}", "data.tokenizer.size=60", "data.length=12")
    networks = ("student=bilstm", "teacher.members=[bilstm]")
    with pytest.raises(UserError, match=r"the tokens have classes.*leave out shuffled_teacher"):
        planned(*data, *networks, "controls=[shuffled_teacher]")
    planned(*data, *networks, "controls=[pseudo_label,single_teacher,random_teacher]")


def test_the_page_names_each_of_them_and_its_own_one_can_be_planned(own_folder: Path) -> None:
    page = (conf_dir().parent / "docs" / "controls.md").read_text()
    assert all(f"\n| `{name}`" in page for name in NAMES)
    (written,) = re.findall(r"```yaml\n# my_conf/(.+)\n((?:.+\n)+)```", page)
    path = own_folder / written[0]
    path.parent.mkdir()
    path.write_text(written[1])
    plan = make_plan(compose([*OF_TWO, f"controls=[{path.stem}]"], [own_folder]))
    assert objectives_of(plan.stages[-1])["label"].smoothing == 0.3
