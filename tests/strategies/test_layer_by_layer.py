"""A stage for each layer, and one for the predictions."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ensemble_kd.build import build
from ensemble_kd.config import compose, plain
from ensemble_kd.engine import Engine
from ensemble_kd.errors import UserError
from ensemble_kd.networks import Cnn
from ensemble_kd.objectives import Label, Term
from ensemble_kd.plan import make_plan
from ensemble_kd.stage import Given, Stage
from ensemble_kd.store import Store
from ensemble_kd.strategies import LayerByLayer, Parallel
from ensemble_kd.teachers import Ensemble
from ensemble_kd.training import assemble
from ensemble_kd.types import Batch, Progress
from ensemble_kd.weightings import Uniform


def term(objective: dict[str, Any]) -> dict[str, Any]:
    return {"_target_": "ensemble_kd.objectives.Term", "objective": objective}


def matched(
    comparison: str, student: list[str], teachers: list[Any], **further: Any
) -> dict[str, Any]:
    arguments = {"heads": 2} if comparison == "MobileBertAttention" else {}
    return term(
        {
            "_target_": "ensemble_kd.objectives.Matched",
            "comparison": {"_target_": f"ensemble_kd.objectives.{comparison}", **arguments},
            "student": student,
            "teachers": teachers,
            **further,
        }
    )


LABEL = term({"_target_": "ensemble_kd.objectives.Label"})
SOFT = term({"_target_": "ensemble_kd.objectives.Soft"})
ATTENTION = ["l.0.query", "l.0.key", "l.1.query", "l.1.key"]
OTHERS = ["m.1.query", "m.1.key", "m.3.query", "m.3.key"]
TERMS = {
    "label": LABEL,
    "attention": matched("MobileBertAttention", ATTENTION, OTHERS),
    "states": matched("Hint", ["l.0", "l.1"], [["m.1", "m.3"], ["n.0", "n.1"]], factors=[1, 3]),
    "soft": SOFT,
}


def last(terms: Mapping[str, Any]) -> Stage:
    return Stage(
        name="student",
        student={"_target_": "small"},
        teachers=("teacher/0", "teacher/1"),
        strategy={"_target_": "matching", "terms": terms, "weighting": {"_target_": "uniform"}},
        optimizers={"default": {"lr": 1}},
        trainer={},
        data="",
        labelled_only=False,
        epochs=8,
        select="best",
        seed=7,
        ensemble={"_target_": "mixture"},
    )


def terms_of(stage: Stage) -> dict[str, Any]:
    assert not isinstance(stage.strategy, Given)
    return dict(stage.strategy["terms"])


def test_each_layer_has_a_stage_and_the_predictions_have_the_last() -> None:
    stage = last(TERMS)
    first, second, third = LayerByLayer().stages(stage)
    strategy = stage.strategy
    assert not isinstance(strategy, Given)
    hints = [["m.1"], ["n.0"]], [["m.3"], ["n.1"]]
    assert first == replace(
        stage,
        name="layer/1",
        epochs=2,
        select="last",
        strategy={
            **strategy,
            "terms": {
                "attention": matched("MobileBertAttention", ATTENTION[:2], OTHERS[:2]),
                "states": matched("Hint", ["l.0"], hints[0], factors=[1]),
            },
            "after": None,
            "up_to": "l.0",
        },
    )
    assert second == replace(
        stage,
        name="layer/2",
        epochs=2,
        select="last",
        initial="layer/1",
        strategy={
            **strategy,
            "terms": {
                "attention": matched("MobileBertAttention", ATTENTION[2:], OTHERS[2:]),
                "states": matched("Hint", ["l.1"], hints[1], factors=[3]),
            },
            "after": "l.0",
            "up_to": "l.1",
        },
    )
    assert third == replace(
        stage,
        epochs=4,
        initial="layer/2",
        strategy={**strategy, "terms": {"label": LABEL, "soft": SOFT}},
    )


@pytest.mark.parametrize(
    ("student", "layers", "ends", "kept"),
    [
        (["a", "b.pooled", "c.first"], None, ["a", "b", "c"], [["a"], ["b.pooled"], ["c.first"]]),
        (["a.0", "a", "b.input"], None, ["a", "b"], [["a.0", "a"], ["b.input"]]),
        (["a.1", "a.10"], None, ["a.1", "a.10"], [["a.1"], ["a.10"]]),
        (["a.0", "a.1", "b.0"], ["a", "b"], ["a", "b"], [["a.0", "a.1"], ["b.0"]]),
    ],
)
def test_the_layers_are_the_outermost_ones_or_those_that_are_named(
    student: list[str], layers: list[str] | None, ends: list[str], kept: list[list[str]]
) -> None:
    teachers = [f"t{number}" for number in range(len(student))]
    terms = {"soft": SOFT, "states": matched("Hint", student, teachers)}
    *early, final = LayerByLayer(layers).stages(last(terms))
    spans = [(each.strategy["after"], each.strategy["up_to"]) for each in early]  # type: ignore
    assert spans == list(zip([None, *ends], ends, strict=False))
    own = [terms_of(each)["states"]["objective"]["student"] for each in early]
    assert own == kept
    taught = [terms_of(each)["states"]["objective"]["teachers"] for each in early]
    assert list(itertools.chain(*taught)) == teachers
    assert list(terms_of(final)) == ["soft"]


def test_a_term_that_looks_at_nothing_in_a_layer_is_not_there() -> None:
    terms = {**TERMS, "states": matched("Hint", ["l.0"], ["m.1"])}
    first, second, _ = LayerByLayer(["l.0", "l.1"]).stages(last(terms))
    assert list(terms_of(first)) == ["attention", "states"]
    assert list(terms_of(second)) == ["attention"]


@pytest.mark.parametrize(
    ("epochs", "share", "split"),
    [
        (8, 0.5, [2, 2, 4]),
        (9, 0.5, [2, 2, 5]),
        (10, 0.5, [3, 2, 5]),
        (40, 0.01, [1, 1, 38]),
        (10, 0.99, [5, 4, 1]),
        (1, 0.5, [1, 1, 1]),
        (3, 0.9, [1, 1, 1]),
    ],
)
def test_the_stages_share_the_epochs(epochs: int, share: float, split: list[int]) -> None:
    stages = LayerByLayer(share=share).stages(replace(last(TERMS), epochs=epochs))
    assert [stage.epochs for stage in stages] == split


@pytest.mark.parametrize(
    ("terms", "layers", "words"),
    [
        ({"label": LABEL, "soft": SOFT}, None, "a term that looks at features.*got label, soft$"),
        ({"states": TERMS["states"]}, None, "expected to leave a term for the last stage"),
        (TERMS, [], "strategy.layers: expected at least one layer, got none; null finds them"),
        (TERMS, ["l.0"], "the objective looks at l.1.query, which is in none of l.0"),
        (TERMS, ["l.0", "l.1", "l.2"], "the objective looks at nothing in l.2"),
        (
            {"soft": SOFT, "unequal": matched("SemCkd", ["a", "b"], ["a", "b", "c"])},
            None,
            "needs as many layers of the teachers as of the student, got 2 .* term unequal",
        ),
    ],
)
def test_what_cannot_be_taken_apart_is_one_line(
    terms: Mapping[str, Any], layers: list[str] | None, words: str
) -> None:
    with pytest.raises(UserError, match=words) as refusal:
        LayerByLayer(layers).stages(last(terms))
    assert "\n" not in str(refusal.value)


def test_a_term_without_a_list_of_layers_is_one_line() -> None:
    crd = plain(compose(["objective=crd"]).objective.terms.crd, "crd")
    with pytest.raises(UserError, match="needs terms with a list of layers, got Crd as crd"):
        LayerByLayer().stages(last({"soft": SOFT, "crd": crd}))


def test_bad_input_is_one_line() -> None:
    with pytest.raises(ValueError, match=r"share must be in \(0, 1\), got 1"):
        LayerByLayer(share=1)
    with pytest.raises(UserError, match="needs a strategy by name, got an object"):
        LayerByLayer().stages(replace(last(TERMS), strategy=Given(nn.Linear(1, 1))))


def test_an_objective_without_features_is_preceded_by_hints() -> None:
    chosen = compose(["strategy=layer_by_layer", "objective=kd"])
    chain = build(plain(chosen.strategy.chain, "chain"), "chain")
    strategy = plain(chosen.strategy.turns, "turns")
    stages = chain.stages(last(strategy["terms"]))
    assert [list(terms_of(each)) for each in stages] == [["hint"], ["label", "soft"]]


def test_only_the_stretch_of_the_student_is_among_what_is_stepped() -> None:
    student = Cnn((1, 8, 8), 3, [2, 3])
    strategy = Parallel({"label": Term(Label())}, Uniform(), "stages.0", "stages.1")
    strategy.meet(student)
    stepped = {id(parameter) for parameter in strategy.players(student)["student"]}
    names = {name for name, parameter in student.named_parameters() if id(parameter) in stepped}
    assert names == {name for name, _ in student.named_parameters() if name.startswith("stages.1")}


def test_layers_at_rest_have_no_dropout_and_do_not_move() -> None:
    torch.manual_seed(0)

    def layer() -> nn.Sequential:
        return nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Dropout(0.5))

    first, second = layer(), layer()
    student = nn.Sequential(OrderedDict(first=first, second=second, third=layer()))
    strategy = Parallel({"label": Term(Label())}, Uniform(), "first", "second")
    strategy.meet(student)
    seen: list[Tensor] = []
    second.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    before = {key: value.clone() for key, value in student.state_dict().items()}
    optimizer = torch.optim.SGD(strategy.players(student)["student"], 0.1, weight_decay=0.1)
    batch = Batch(torch.randn(8, 6), torch.arange(8) % 6, torch.arange(8))
    student.train()
    for _ in range(3):
        (turn,) = strategy.turns(student, Ensemble([]), batch, Progress(0, 0, 0.0))
        optimizer.zero_grad()
        turn.terms["label"].backward()
        optimizer.step()
    assert all(module.training for module in student.modules())
    moved = {
        key for key, value in student.state_dict().items() if not torch.equal(value, before[key])
    }
    assert moved == {key for key in before if key.startswith("second.")}
    student.eval()
    with torch.no_grad():
        undisturbed = first(batch.inputs)
    assert all(torch.equal(each, undisturbed) for each in seen)


@pytest.mark.filterwarnings("ignore:.*limit_val_batches")
def test_each_stage_moves_its_layer_and_goes_on_from_the_one_before() -> None:
    plan = make_plan(
        compose(
            [
                "student=cnn_small",
                "teacher.members=[cnn_small]",
                "strategy=layer_by_layer",
                "objective=hint",
                "objective.student_layers=[stages.0,stages.1]",
                "objective.teacher_layers=[stages.0,stages.1]",
                "epochs=3",
                "teacher.epochs=1",
                "batch_size=16",
                "controls=[]",
                "+trainer.limit_train_batches=2",
                "+trainer.limit_val_batches=0",
            ]
        )
    )
    assert [stage.name for stage in plan.stages[1:]] == ["layer/1", "layer/2", "student"]
    products = Engine(plan, Store(Path("store")), Path("run"), logger=False).products()
    assembled = [assemble(plan.stages[1]), *(products[s.name].learner for s in plan.stages[1:])]
    weights = [dict(each.deliverable().named_parameters()) for each in assembled]
    parts = ("stages.0.", "stages.1.", "classifier.")
    moved = [
        {
            part
            for part in parts
            for name, value in after.items()
            if name.startswith(part) and not torch.equal(value, before[name])
        }
        for before, after in itertools.pairwise(weights)
    ]
    assert moved == [{"stages.0."}, {"stages.1."}, set(parts)]
