"""Features through a whole run: taps, connectors, store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ensemble_kd.config import compose
from ensemble_kd.engine import CURVES, Engine, Product
from ensemble_kd.errors import UserError
from ensemble_kd.objectives import Matched
from ensemble_kd.plan import make_plan
from ensemble_kd.report.curves import read_points
from ensemble_kd.store import Store
from ensemble_kd.strategies.strategy import objectives

SMALL = (
    "objective=hint",
    "teacher.members=[cnn_small,resnet8]",
    "objective.teacher_layers=[[stages],[stages]]",
    "epochs=4",
    "teacher.epochs=4",
    "controls=[]",
)


def trained(*overrides: str) -> dict[str, Product]:
    plan = make_plan(compose([*SMALL, *overrides]))
    return Engine(plan, Store(Path("store")), Path("run"), logger=False).products()


def curve(product: Product, name: str) -> list[float]:
    points = read_points(product.artefact.folder / CURVES)
    return [point.value for point in points if point.name == name]


def connectors(product: Product) -> Mapping[str, Tensor]:
    (matched,) = (o for o in objectives(product.learner.strategy) if isinstance(o, Matched))
    return matched.state_dict()


def test_unlike_teachers_are_followed_through_connectors_that_are_kept() -> None:
    first = trained()
    teachers = [first[f"teacher/{number}"].learner.student for number in range(2)]
    before = [{k: v.clone() for k, v in teacher.state_dict().items()} for teacher in teachers]
    again = trained()
    assert all(product.reused for product in again.values())
    kept, found = connectors(first["student"]), connectors(again["student"])
    assert len(kept) == 4  # a weight and a bias for each teacher
    assert all(torch.equal(kept[name], found[name]) for name in kept)
    hints = curve(first["student"], "student/hint")
    assert hints[-1] < 0.9 * hints[0]

    without = trained("objective.feature_weight=0")
    assert not without["student"].reused
    assert hints[-1] > 0.0
    mine = dict(first["student"].learner.student.state_dict())
    other = without["student"].learner.student.state_dict()
    assert any(not torch.equal(mine[name], other[name]) for name in mine)
    for state, teacher in zip(before, teachers, strict=True):
        assert all(torch.equal(state[k], v) for k, v in teacher.state_dict().items())


def test_assistants_pass_features_on() -> None:
    products = trained(
        "strategy=assistant",
        "strategy.assistants=[cnn_small]",
        "objective.teacher_layers=[stages]",
        "teacher.members=[cnn_small]",
        "epochs=2",
    )
    for name in ("assistant/0", "student"):
        assert curve(products[name], "student/hint")[-1] > 0


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("objective.student_layers=[stagse]", "layer 'stagse': Cnn has no module 'stagse'; did"),
        ("objective.teacher_layers=[[stages],[stgaes]]", "layer 'stgaes': ResNet has no module"),
        ("objective.teacher_layers=[[stages]]", "objective: teachers must be a list of layers"),
        ("objective.teacher_layers=[stages,pool]", "teachers must name 1 layers like the student"),
        ("objective.teacher_layers=[[stages],[classifier]]", ""),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_trained(override: str, words: str) -> None:
    if not words:  # a map against a vector is no mistake: it is averaged over its places
        make_plan(compose([*SMALL, override]))
        return
    with pytest.raises(UserError, match=words) as refusal:
        make_plan(compose([*SMALL, override]))
    assert "\n" not in str(refusal.value)
