"""FastBERT's two stages: what the earlier classifiers learn, and that nothing else moves."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ensemble_kd.config import compose
from ensemble_kd.engine import Engine
from ensemble_kd.errors import UserError
from ensemble_kd.networks import EarlyExit, Mlp
from ensemble_kd.plan import make_plan
from ensemble_kd.stage import Stage
from ensemble_kd.store import Store
from ensemble_kd.strategies import BranchDistillation, SelfDistillation
from ensemble_kd.strategies.self_distillation import Direction
from ensemble_kd.teachers import Ensemble
from ensemble_kd.types import UNLABELLED, Batch, Progress, Tokens, Turn

LENGTH, LAYERS, CLASSES, SAMPLES = 7, 3, 3, 5
PROGRESS = Progress(3, 1, 0.5)
LAST = Stage(
    name="student",
    student={"_target_": "small"},
    teachers=(),
    strategy={"_target_": "matching"},
    optimizers={"default": {"lr": 0.1, "clip": 2.0}, "weighting": {"lr": 2}},
    trainer={},
    data="",
    labelled_only=False,
    epochs=10,
    select="best",
    seed=7,
    ensemble={"_target_": "trajectory"},
)
ALONE, BRANCHES = {"_target_": "labels"}, {"_target_": "branches"}


@pytest.fixture
def student() -> EarlyExit:
    """In float64, with classifiers that disagree, and in training mode with dropout."""
    torch.manual_seed(3)
    made = EarlyExit(30, [LENGTH], CLASSES, LAYERS, 16, 2, 24, dropout=0.3, exit_width=8)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.5)
    return made.double().train()


@pytest.fixture
def batch() -> Batch:
    """Texts, of which nobody knows a label."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.arange(LENGTH) < torch.tensor([2, 7, 4, 3, 6])[:, None]
    ids = torch.randint(30, (SAMPLES, LENGTH), generator=generator)
    texts = Tokens(ids, mask, torch.zeros_like(ids), torch.zeros(SAMPLES, 1).byte())
    target = torch.full((SAMPLES,), UNLABELLED)
    return Batch(texts, target, torch.arange(SAMPLES), target != UNLABELLED)


def turn(student: EarlyExit, batch: Batch, **settings: Any) -> Turn:
    strategy = BranchDistillation(**settings)
    strategy.meet(student)
    (only,) = strategy.turns(student, Ensemble([]), batch, PROGRESS)
    return only


def softmax(logits: Tensor, temperature: float) -> list[list[float]]:
    rows = []
    for row in logits.tolist():
        powers = [math.exp(z / temperature) for z in row]
        rows.append([power / sum(powers) for power in powers])
    return rows


def reference(one: Tensor, other: Tensor, temperature: float) -> float:
    """T^2 KL(one || other), the mean over samples."""
    pairs = zip(softmax(one, temperature), softmax(other, temperature), strict=True)
    apart = [sum(p * math.log(p / q) for p, q in zip(a, b, strict=True)) for a, b in pairs]
    return temperature**2 * sum(apart) / len(apart)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("direction", ["last_first", "earlier_first"])
def test_each_earlier_classifier_is_held_against_the_last(
    student: EarlyExit, batch: Batch, direction: Direction, temperature: float
) -> None:
    # Without dropout in what learns, so that there is one answer; blocks and last keep theirs.
    for number in range(LAYERS - 1):
        dropout = student.get_submodule(f"exits.{number}.drop")
        assert isinstance(dropout, nn.Dropout)
        dropout.p = 0.0
    said = turn(student, batch, direction=direction, temperature=temperature)
    resting = copy.deepcopy(student).eval()
    last = resting.through(batch.inputs, LAYERS).detach()
    assert said.player == "exits"
    assert list(said.terms) == ["exit/1/soft", "exit/2/soft"]
    for number, value in enumerate(said.terms.values(), start=1):
        earlier = resting.through(batch.inputs, number).detach()
        pair = (last, earlier) if direction == "last_first" else (earlier, last)
        assert value.item() == pytest.approx(reference(*pair, temperature))


def test_the_two_directions_differ(student: EarlyExit, batch: Batch) -> None:
    student.eval()
    one = turn(student, batch, direction="last_first").terms["exit/1/soft"].item()
    other = turn(student, batch, direction="earlier_first").terms["exit/1/soft"].item()
    assert abs(one - other) > 0.01


def test_earlier_classifiers_receive_gradient_and_nothing_else(
    student: EarlyExit, batch: Batch
) -> None:
    said = turn(student, batch)
    torch.stack(list(said.terms.values())).sum().backward()
    learning = {id(parameter) for leave in student.exits[:-1] for parameter in leave.parameters()}
    for name, parameter in student.named_parameters():
        if id(parameter) not in learning:
            assert parameter.grad is None, name
        elif not name.endswith("key.bias"):  # softmax does not see what all keys share
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


def test_each_classifier_receives_the_gradient_of_its_own_loss(
    student: EarlyExit, batch: Batch
) -> None:
    student.eval()
    terms = turn(student, batch).terms
    terms["exit/2/soft"].backward()
    assert all(parameter.grad is None for parameter in student.exits[0].parameters())
    assert student.get_parameter("exits.1.classifier.weight").grad is not None


def test_the_player_steps_the_earlier_classifiers_only(student: EarlyExit) -> None:
    (name, parameters), *rest = BranchDistillation().players(student).items()
    expected = [p for leave in list(student.exits)[:-1] for p in leave.parameters()]
    assert name == "exits"
    assert not rest
    assert {id(p) for p in parameters} == {id(p) for p in expected}


def test_modes_are_as_they_were(student: EarlyExit, batch: Batch) -> None:
    student.body.eval()
    turn(student, batch)
    assert student.exits.training
    assert not student.body.training


def test_the_network_as_far_as_each_classifier_is_reported(
    student: EarlyExit, batch: Batch
) -> None:
    student.eval()
    found = BranchDistillation().predictors(student)
    assert list(found) == ["student", "exit/1", "exit/2"]
    for number in (1, 2):
        expected = student.through(batch.inputs, number)
        assert torch.equal(found[f"exit/{number}"](batch.inputs), expected)
        assert not found[f"exit/{number}"].training


@pytest.mark.parametrize("layers", [1, None])
def test_a_network_without_earlier_classifiers_is_refused(layers: int | None) -> None:
    network: nn.Module = Mlp([4], 2, [3])
    if layers is not None:
        network = EarlyExit(30, [LENGTH], CLASSES, layers, 16, 2, 24, exit_width=8)
    with pytest.raises(ValueError, match="needs a network with classifiers behind two blocks"):
        BranchDistillation().meet(network)


def test_a_direction_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="direction must be one of last_first, earlier_first"):
        BranchDistillation("both")  # type: ignore[arg-type]


def test_the_second_stage_goes_on_from_the_first_and_keeps_its_last_weights() -> None:
    first, second = SelfDistillation(ALONE, BRANCHES, share=0.3, faster=10).stages(LAST)
    alone = {"default": LAST.optimizers["default"]}
    assert first == replace(LAST, name="phase/1", epochs=3, strategy=ALONE, optimizers=alone)
    assert second == replace(
        LAST,
        strategy=BRANCHES,
        optimizers={"default": {"lr": 1.0, "clip": 2.0}},
        epochs=7,
        ensemble=None,
        initial="phase/1",
        select="last",
    )


def test_teachers_are_heard_in_the_first_stage_only() -> None:
    last = replace(LAST, teachers=("teacher/0",))
    first, second = SelfDistillation(ALONE, BRANCHES).stages(last)
    assert first == replace(last, name="phase/1", epochs=5)
    assert second.teachers == ()
    assert second.optimizers == {"default": LAST.optimizers["default"]}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"faster": 0.0}, "faster must be a finite number > 0, got 0.0"),
        ({"share": 1.0}, r"share must be in \(0, 1\), got 1.0"),
    ],
)
def test_arguments_out_of_range_are_refused(settings: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SelfDistillation(ALONE, BRANCHES, **settings)


def test_an_optimiser_without_a_learning_rate_is_one_line() -> None:
    last = replace(LAST, optimizers={"default": {"_target_": "own"}})
    with pytest.raises(UserError, match=r"optimizer\.lr: expected a number"):
        SelfDistillation(ALONE, BRANCHES).stages(last)


def test_texts_leave_early_from_the_second_stage_on() -> None:
    made = EarlyExit(30, [LENGTH], CLASSES, LAYERS, 16, 2, 24, exit_width=8)
    assert not made.settled
    BranchDistillation().begin(made, Ensemble([]))
    assert made.settled


@pytest.mark.filterwarnings("ignore:.*limit_val_batches")
def test_first_stage_and_control_answer_through_the_last_classifier(text_root: Path) -> None:
    small = ("source.limit=null", "tokenizer.size=60", "length=12", "labelled=30")
    plan = make_plan(
        compose(
            [
                *("experiment=sst2_fastbert", "student.speed=1.0", "epochs=2", "batch_size=4"),
                *(f"data.{size}" for size in small),
                *(f"paths.data={text_root}", "+trainer.limit_train_batches=2"),
                "+trainer.limit_val_batches=0",
            ]
        )
    )
    texts = next(iter(plan.data.val_dataloader())).inputs
    for _ in range(2):  # trained, then restored
        products = Engine(plan, Store(Path("store")), Path("run"), logger=False).products()
        for name, exits in (("phase/1", -1), ("control/no_teacher", -1), ("student", 0)):
            network = products[name].learner.deliverable()
            assert isinstance(network, EarlyExit)
            assert network.speed == 1.0
            layers = range(1, network.layers + 1)[exits]
            with torch.no_grad():
                assert torch.equal(network(texts), network.through(texts, layers)), name
