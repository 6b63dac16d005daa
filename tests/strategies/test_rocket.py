from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ensemble_kd.config import compose
from ensemble_kd.errors import UserError
from ensemble_kd.networks import Cnn, cut
from ensemble_kd.networks.connector import Connector
from ensemble_kd.objectives import Label, Soft, Term
from ensemble_kd.plan import make_plan
from ensemble_kd.stage import Given
from ensemble_kd.strategies import Rocket
from ensemble_kd.teachers import Ensemble, Frozen
from ensemble_kd.types import UNLABELLED, Batch, Progress, Turn
from ensemble_kd.weightings import Reinforced, Uniform

START = Progress(0, 0, 0.0)
INPUTS = (1, 6, 6)
Maker = Callable[[int], nn.Module]


def cnn(seed: int, *widths: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Cnn(INPUTS, 4, widths=widths).double()


def made(
    student: nn.Module, booster: nn.Module, terms: dict[str, Term] | None = None, **options: Any
) -> Rocket:
    terms = terms or {"label": Term(Label(), 0.5)}
    strategy = Rocket(booster, terms, Uniform(), INPUTS, **options)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        strategy.meet(student)
    return strategy


def only(turns: Any) -> Turn:
    (turn,) = turns
    assert isinstance(turn, Turn)
    return turn


def total(turn: Turn) -> Tensor:
    return torch.stack(list(turn.terms.values())).sum()


def reference_hint(light: Tensor, booster: Tensor, weight: float) -> float:
    rows = zip(light.tolist(), booster.tolist(), strict=True)
    distances = [(a - b) ** 2 for row in rows for a, b in zip(*row, strict=True)]
    return weight * math.fsum(distances) / len(light)


def reference_label(logits: Tensor, batch: Batch, weight: float) -> float:
    values = []
    for row, target in zip(logits.tolist(), batch.target.tolist(), strict=True):
        if target != UNLABELLED:
            values.append(math.log(sum(math.exp(z) for z in row)) - row[target])
    return weight * math.fsum(values) / len(values)


@pytest.mark.parametrize("block", [True, False])
@pytest.mark.parametrize("weight", [0.0, 0.03, 2.0])
def test_its_losses_are_the_paper_s(
    network: Maker, batch: Batch, weight: float, block: bool
) -> None:
    student, booster = network(0), network(1)
    strategy = made(student, booster, weight=weight, block=block)
    turn = only(strategy.turns(student, Ensemble(), batch, START))
    light, strong = student(batch.inputs), booster(batch.inputs)
    expected = {
        "label": reference_label(light, batch, 0.5),
        "booster/label": reference_label(strong, batch, 0.5),
        "hint": reference_hint(light, strong, weight),
    }
    assert turn.player == "student"
    assert {n: v.item() for n, v in turn.terms.items()} == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("block", [True, False])
@pytest.mark.parametrize("split", [None, "stages.1"])
def test_who_receives_the_gradient_of_the_hint(
    images: Batch, block: bool, split: str | None
) -> None:
    student, booster = cnn(0, 2, 3), cnn(1, 4, 5)
    strategy = made(student, booster, weight=1.0, block=block, split=split)
    turn = only(strategy.turns(student, Ensemble(), images, START))
    turn.terms["hint"].backward()
    light = [p.grad is not None and bool(p.grad.abs().sum() > 0) for p in student.parameters()]
    strong = [p.grad is not None and bool(p.grad.abs().sum() > 0) for p in strategy.parameters()]
    assert all(light)
    assert strong
    assert all(strong) if not block else not any(strong)


def test_the_booster_learns_its_labels_through_the_shared_layers(images: Batch) -> None:
    student, booster = cnn(0, 2, 3), cnn(1, 4, 5)
    strategy = made(student, booster, split="stages.1")
    turn = only(strategy.turns(student, Ensemble(), images, START))
    turn.terms["booster/label"].backward()
    shared, own = cut(student, "stages.1")
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in shared.parameters())
    assert all(p.grad is None for p in own.parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in strategy.parameters())
    assert len(list(strategy.parameters())) == 2 + 3 + 2  # connector, last stage, classifier


def test_on_a_shared_trunk_the_booster_goes_on_where_it_ends(images: Batch) -> None:
    student, booster = cnn(0, 2, 3), cnn(1, 4, 5)
    upper = cut(booster, "stages.1").head
    strategy = made(student, booster, split="stages.1")
    assert isinstance(strategy.connector, Connector)
    for network in (student, strategy):
        network.eval()
    trunk, head = cut(student, "stages.1")
    shared = trunk(images.inputs)
    expected = upper(strategy.connector(shared))
    predictors = strategy.predictors(student)
    assert list(predictors) == ["student", "booster"]
    torch.testing.assert_close(predictors["booster"](images.inputs), expected)
    assert not any(module.training for module in predictors["booster"].modules())
    turn = only(strategy.turns(student, Ensemble(), images, START))
    hint = reference_hint(head(shared), expected, 0.03)
    assert turn.terms["hint"].item() == pytest.approx(hint, rel=1e-10)
    assert strategy.deliverable(student) is student


def test_networks_that_fit_each_other_need_no_connector() -> None:
    strategy = made(cnn(0, 2, 3), cnn(1, 2, 9, 9), split="stages.1")
    assert isinstance(strategy.connector, nn.Identity)


def test_the_booster_may_be_cut_elsewhere(images: Batch) -> None:
    student = cnn(0, 2, 3)
    strategy = made(student, cnn(1, 4, 4, 5), split="stages.1", booster_split="stages.2")
    assert isinstance(strategy.connector, Connector)
    assert strategy.connector.size == (3, 3)
    turn = only(strategy.turns(student, Ensemble(), images, START))
    assert total(turn).isfinite()


def test_all_are_steps_of_one_player(images: Batch) -> None:
    student, booster = cnn(0, 2, 3), cnn(1, 4, 5)
    for split in (None, "stages.1"):
        strategy = made(student, booster, split=split)
        ((name, parameters),) = strategy.players(student).items()
        assert name == "student"
        everything = [*student.parameters(), *strategy.parameters()]
        assert {id(p) for p in parameters} == {id(p) for p in everything}


def test_frozen_teachers_teach_both(
    network: Maker, ensemble: Callable[[int], Ensemble], batch: Batch
) -> None:
    student, booster = network(0), network(1)
    terms = {"label": Term(Label()), "soft": Term(Soft(temperature=1.0))}
    strategy = made(student, booster, terms)
    teachers = ensemble(2)
    before = [p.clone() for each in teachers.members for p in _network(each).parameters()]
    turn = only(strategy.turns(student, teachers, batch, START))
    assert list(turn.terms) == ["label", "soft", "booster/label", "booster/soft", "hint"]
    for name, each in (("soft", student), ("booster/soft", booster)):
        apart = []
        for teacher in teachers.members:
            p = _network(teacher)(batch.inputs).softmax(-1)
            apart.append((p * (p.log() - each(batch.inputs).log_softmax(-1))).sum(-1).mean())
        torch.testing.assert_close(turn.terms[name], torch.stack(apart).mean())
    total(turn).backward()
    after = [p for each in teachers.members for p in _network(each).parameters()]
    assert all(torch.equal(p, q) and q.grad is None for p, q in zip(before, after, strict=True))
    alone = only(strategy.turns(student, Ensemble(), batch, START))
    assert list(alone.terms) == ["label", "booster/label", "hint"]


def _network(teacher: nn.Module) -> nn.Module:
    assert isinstance(teacher, Frozen)
    return teacher.network


def test_without_labels_only_the_hint_counts(network: Maker, batch: Batch) -> None:
    unknown = torch.full_like(batch.target, UNLABELLED)
    unlabelled = batch._replace(target=unknown, mask=torch.zeros(7, dtype=torch.bool))
    student = network(0)
    turn = only(made(student, network(1)).turns(student, Ensemble(), unlabelled, START))
    assert {n for n, v in turn.terms.items() if v.item() != 0} == {"hint"}


@pytest.mark.parametrize("scale", [0.0, 1e4])
@pytest.mark.parametrize("kind", [torch.float16, torch.float32])
def test_it_stays_finite(scale: float, kind: torch.dtype) -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.logits = nn.Parameter(torch.tensor([[scale, -scale]], dtype=kind))

        def forward(self, inputs: Tensor) -> Tensor:
            return self.logits

    student, booster = Fixed(), Fixed()
    booster.logits.data.neg_()
    batch = Batch(torch.zeros(1, 1), torch.tensor([1]), torch.zeros(1, dtype=torch.long))
    turn = only(made(student, booster).turns(student, Ensemble(), batch, START))
    assert turn.terms["hint"].dtype == torch.float32
    assert turn.terms["hint"].item() == pytest.approx(0.03 * 8 * scale**2)
    total(turn).backward()
    assert student.logits.grad is not None
    assert student.logits.grad.isfinite().all()


def test_what_cannot_be_is_refused(network: Maker) -> None:
    label = {"label": Term(Label())}
    with pytest.raises(ValueError, match="weight must be a finite number >= 0, got -1"):
        Rocket(network(1), label, Uniform(), INPUTS, weight=-1)
    with pytest.raises(ValueError, match=r"such as label, got \['soft'\]"):
        Rocket(network(1), {"soft": Term(Soft())}, Uniform(), INPUTS)
    with pytest.raises(ValueError, match=r"booster_split must be null .* got 'stages.1'"):
        Rocket(network(1), label, Uniform(), INPUTS, booster_split="stages.1")
    with pytest.raises(ValueError, match="must not wait for the student's step"):
        Rocket(network(1), label, Reinforced(4), INPUTS)
    with pytest.raises(UserError, match=r"has no module 'stages\.7'"):
        made(cnn(0, 2, 3), cnn(1, 4, 5), split="stages.1", booster_split="stages.7")
    fresh = Rocket(cnn(1, 4, 5), label, Uniform(), INPUTS, split="stages.1")
    with pytest.raises(ValueError, match="must meet the student"):
        fresh.predictors(cnn(0, 2, 3))
    with pytest.raises(UserError, match=r"no network 'cnn_lrge' .* did you mean 'cnn_large'"):
        make_plan(compose(["strategy=rocket", "strategy.booster=cnn_lrge"]))


@pytest.mark.parametrize(
    "booster", ["cnn_large", "${student}", "{network: cnn_large, dropout: 0.5}"]
)
def test_the_booster_is_named_or_a_node(booster: str) -> None:
    plan = make_plan(compose(["strategy=rocket", "teacher=none", f"strategy.booster={booster}"]))
    strategy = plan.stages[0].strategy
    assert not isinstance(strategy, Given)
    widths = [4, 8] if booster == "${student}" else [16, 48, 96]
    assert strategy["booster"]["widths"] == widths
    assert strategy["booster"]["dropout"] == (0.5 if "dropout" in booster else 0.0)


@pytest.mark.parametrize("split", ["stages.1", "null"])
def test_on_digits_the_student_follows_its_booster(trained: Callable[..., Any], split: str) -> None:
    """With the hint the student's logits end nearer to the booster's than without."""
    run = (
        "strategy=rocket",
        "teacher=none",
        "controls=[]",
        "epochs=6",
        f"strategy.split={split}",
    )
    distances = []
    for weight in (0.3, 0):
        done = trained(*run, f"strategy.hint_weight={weight}")
        assert set(done.networks) == {"booster", "student"}
        inputs = torch.cat([each.inputs for each in done.plan.data.val_dataloader()])
        with torch.no_grad():
            own, booster = (done.networks[name](inputs) for name in ("student", "booster"))
        distances.append((own - booster).square().sum(-1).mean().item())
        assert done.accuracies["booster"] > 0.8
    assert distances[0] < 0.7 * distances[1]
