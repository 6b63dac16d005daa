from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from ensemble_kd.build import build
from ensemble_kd.config import compose, plain
from ensemble_kd.errors import UserError
from ensemble_kd.objectives import Objective
from ensemble_kd.plan import make_plan
from ensemble_kd.stage import Given, Stage
from ensemble_kd.strategies import FeaturesFirst
from ensemble_kd.strategies.strategy import objectives
from ensemble_kd.training import assemble

LABEL = {
    "_target_": "ensemble_kd.objectives.Term",
    "objective": {"_target_": "ensemble_kd.objectives.Label"},
}
SOFT = {
    "_target_": "ensemble_kd.objectives.Term",
    "objective": {"_target_": "ensemble_kd.objectives.Soft"},
}


def features(comparison: str) -> dict[str, Any]:
    return {
        "_target_": "ensemble_kd.objectives.Term",
        "objective": {
            "_target_": "ensemble_kd.objectives.Matched",
            "comparison": {"_target_": f"ensemble_kd.objectives.{comparison}"},
            "student": ["pool"],
            "teachers": ["pool"],
        },
    }


TERMS = {"label": LABEL, "near": features("Hint"), "soft": SOFT, "apart": features("Rkd")}


def last(terms: Mapping[str, Any]) -> Stage:
    return Stage(
        name="student",
        student={"_target_": "small"},
        teachers=("teacher/0", "teacher/1"),
        strategy={"_target_": "matching", "terms": terms, "weighting": {"_target_": "uniform"}},
        optimizers={"default": {"lr": 1}, "weighting": {"lr": 2}},
        trainer={},
        data="",
        labelled_only=False,
        epochs=8,
        select="best",
        seed=7,
        ensemble={"_target_": "mixture"},
    )


def terms_of(stage: Stage) -> list[str]:
    assert not isinstance(stage.strategy, Given)
    return list(stage.strategy["terms"])


def test_the_features_go_first_and_all_else_follows_under_the_same_teachers() -> None:
    stage = last(TERMS)
    first, second = FeaturesFirst().stages(stage)
    assert not isinstance(stage.strategy, Given)
    assert first == replace(
        stage,
        name="phase/1",
        epochs=2,
        select="last",
        strategy={**stage.strategy, "terms": {n: TERMS[n] for n in ("near", "apart")}},
    )
    assert second == replace(
        stage,
        epochs=6,
        initial="phase/1",
        strategy={**stage.strategy, "terms": {n: TERMS[n] for n in ("label", "soft")}},
    )


@pytest.mark.parametrize(
    ("first", "before", "after"),
    [
        (["near"], ["near"], ["label", "soft", "apart"]),
        (["apart", "near"], ["near", "apart"], ["label", "soft"]),
        (["soft"], ["soft"], ["label", "near", "apart"]),
    ],
)
def test_the_first_terms_can_be_named(
    first: list[str], before: list[str], after: list[str]
) -> None:
    stages = FeaturesFirst(first).stages(last(TERMS))
    assert [terms_of(stage) for stage in stages] == [before, after]


@pytest.mark.parametrize(
    ("epochs", "share", "split"), [(8, 0.5, (4, 4)), (40, 0.01, (1, 39)), (1, 0.5, (1, 1))]
)
def test_the_stages_share_the_epochs(epochs: int, share: float, split: tuple[int, int]) -> None:
    stages = FeaturesFirst(share=share).stages(replace(last(TERMS), epochs=epochs))
    assert tuple(stage.epochs for stage in stages) == split


@pytest.mark.parametrize(
    ("terms", "first", "words"),
    [
        ({"label": LABEL, "soft": SOFT}, None, "a term that looks at features.*got label, soft$"),
        ({"near": TERMS["near"]}, None, "expected to leave a term for the second stage, got all"),
        (TERMS, list(TERMS), "expected to leave a term.*label, near, soft, apart$"),
        (TERMS, ["naer"], "has no term 'naer'; did you mean 'near'"),
        (TERMS, [], "expected at least one term, got none"),
    ],
)
def test_what_cannot_be_taken_apart_is_one_line(
    terms: Mapping[str, Any], first: list[str] | None, words: str
) -> None:
    with pytest.raises(UserError, match=words) as refusal:
        FeaturesFirst(first).stages(last(terms))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("objective", "first", "second"),
    [
        ("kd", ["hint"], ["label", "soft"]),
        ("similarity", ["similarity"], ["label", "soft"]),
        ("label", ["hint"], ["label"]),
    ],
)
def test_an_objective_without_features_is_preceded_by_hints(
    objective: str, first: list[str], second: list[str]
) -> None:
    chosen = compose(["strategy=features_first", f"objective={objective}"])
    chain = build(plain(chosen.strategy.chain, "chain"), "chain")
    strategy = plain(chosen.strategy.turns, "turns")
    stages = chain.stages(last(strategy["terms"]))
    assert [list(each.strategy["terms"]) for each in stages] == [first, second]


def test_bad_input_is_one_line() -> None:
    with pytest.raises(ValueError, match=r"share must be in \(0, 1\), got 1"):
        FeaturesFirst(share=1)
    with pytest.raises(UserError, match="needs a strategy by name, got an object"):
        FeaturesFirst().stages(replace(last(TERMS), strategy=Given(nn.Linear(1, 1))))
    with pytest.raises(UserError, match=r"first: expected"):
        make_plan(compose(["strategy=features_first", "objective=hint", "strategy.first=3"]))


@pytest.mark.parametrize("objective", ["hint", "activation_boundary", "vid", "attention_transfer"])
def test_every_objective_with_features_is_taken_apart(objective: str) -> None:
    plan = make_plan(compose(["strategy=features_first", f"objective={objective}"]))
    first, second = plan.stages[-3:-1]
    assert terms_of(second) == ["label", "soft"]
    assert len(terms_of(first)) == 1
    assert not first.labelled_only
    assert not second.labelled_only


def layer(network: nn.Module, name: str) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in network.named_parameters() if n.startswith(name)}


def test_on_digits_the_first_stage_moves_what_it_compares_and_the_second_goes_on(
    trained: Callable[..., Any],
) -> None:
    run = ("teacher=single", "teacher.epochs=8", "epochs=10", "strategy.share=0.4")
    done = trained("strategy=features_first", "objective=hint", *run)
    assert list(done.networks) == [
        "teacher/0",
        "ensemble",
        "phase/1",
        "student",
        "control/no_teacher",
    ]
    losses = {stage: {n for s, n in done.curves if s == stage} for stage, _ in done.curves}
    assert losses["phase/1"] == {"student/hint", "student/val_accuracy"}
    assert losses["student"] == {"student/label", "student/soft", "student/val_accuracy"}
    assert len(done.curves["phase/1", "student/hint"]) == 4
    assert len(done.curves["student", "student/label"]) == 6

    # Stage 1 ends at the guided layer: the classifier behind it keeps its initial weights.
    hints = done.curves["phase/1", "student/hint"]
    assert hints[-1] < 0.9 * hints[0]
    first, student = (done.products[n].learner.student for n in ("phase/1", "student"))
    initial = assemble(done.plan.stages[1]).student
    for name, weight in layer(first, "classifier").items():
        assert torch.equal(weight, layer(initial, "classifier")[name]), name
        assert not torch.equal(weight, layer(student, "classifier")[name]), name
    for name, weight in layer(first, "stages").items():
        assert not torch.equal(weight, layer(initial, "stages")[name]), name
        assert not torch.equal(weight, layer(student, "stages")[name]), name

    # The connectors of stage 1 are gone, and the student knows more than an untrained classifier.
    left: list[Objective] = objectives(done.products["student"].learner.strategy)
    assert not any(each.student_taps() for each in left)
    assert done.accuracies["student"] > 0.6
