from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from ensemble_kd.objectives import Label, Soft, Term
from ensemble_kd.schedules import Linear
from ensemble_kd.strategies import DiSK
from ensemble_kd.teachers import Ensemble, Frozen
from ensemble_kd.types import UNLABELLED, Batch, Progress, Turn
from ensemble_kd.weightings import Fixed, Reinforced, Uniform, Weighting

START = Progress(0, 0, 0.0)
END = Progress(10, 2, 1.0)
Maker = Callable[[int], nn.Module]


def kd_terms() -> dict[str, Term]:
    return {"label": Term(Label(), 0.1), "soft": Term(Soft())}


def made(weighting: Weighting | None = None, **options: Any) -> DiSK:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        given = {"terms": kd_terms(), "classes": 4, "top": 2, **options}
        return DiSK(weighting=weighting or Uniform(), **given).double()


def network_of(teacher: nn.Module) -> nn.Module:
    assert isinstance(teacher, Frozen)
    return teacher.network


def total(turn: Turn) -> Tensor:
    return torch.stack(list(turn.terms.values())).sum()


def softmax(row: list[float]) -> list[float]:
    highest = max(row)
    powers = [math.exp(z - highest) for z in row]
    return [each / math.fsum(powers) for each in powers]


def reference(
    student: Tensor,
    teachers: list[Tensor],
    weights: list[float],
    shares: list[float],
    target: list[int],
    of_teacher: float,
    of_student: float,
    top: int,
    hardest: float,
) -> tuple[float, float, float]:
    """Scaffolded loss, normaliser and what was censored, sample by sample and class by class."""
    losses, normalisers, spent, wrong = [], [], 0.0, 0
    for i, z in enumerate(student.tolist()):
        each = [softmax(teacher.tolist()[i]) for teacher in teachers]
        classes = range(len(z))
        p = [math.fsum(w * q[c] for w, q in zip(weights, each, strict=True)) for c in classes]
        best = max(classes, key=lambda c: p[c])
        answer = best if target[i] == UNLABELLED else target[i]
        hot = {*sorted(classes, key=lambda c: -p[c])[:top], answer}
        log_p = [math.log(x) for x in p]
        t = softmax([log_p[c] / of_teacher if c in hot else min(log_p) for c in classes])
        s = [q + shares[i] for q in softmax([x / of_student for x in z])]
        losses.append(-of_teacher * of_student * math.fsum(t[c] * math.log(s[c]) for c in hot))
        normalisers.append(math.log(1 + len(hot) * shares[i]))
        q = softmax(z)
        spent += shares[i] * min(-math.log(q[best]), hardest)
        wrong += max(classes, key=lambda c: z[c]) != answer
    count = len(losses)
    return math.fsum(losses) / count, math.fsum(normalisers) / count, spent / max(wrong, 1)


def step(network: nn.Module, loss: Tensor) -> None:
    network.zero_grad()
    loss.backward()
    with torch.no_grad():
        for parameter in network.parameters():
            assert parameter.grad is not None
            parameter.sub_(2.0 * parameter.grad)


def shares_of(guide: nn.Module, p: Tensor, temperature: float) -> list[float]:
    said = guide((p.log() / temperature).softmax(-1))
    assert said.shape == p.shape[:-1]
    return [1 / (1 + math.exp(-x)) for x in said.tolist()]


@pytest.mark.parametrize("top", [1, 2, 4, 9])
@pytest.mark.parametrize(("of_teacher", "of_student"), [(4.0, None), (2.0, 3.5)])
@pytest.mark.parametrize("progress", [START, END])
def test_its_losses_are_those_of_the_authors(
    network: Maker,
    ensemble: Callable[[int], Ensemble],
    batch: Batch,
    top: int,
    of_teacher: float,
    of_student: float | None,
    progress: Progress,
) -> None:
    options = {"temperature": of_teacher, "student_temperature": of_student, "top": top}
    budgets = {"budget": Linear(0.05, 0.01), "penalty": Linear(1.0, 3.0), "hardest": 1.2}
    strategy = made(Fixed([3, 1]), weight=0.7, **options, **budgets)
    student, teachers = network(0), ensemble(2)
    said = [network_of(each)(batch.inputs).detach() for each in teachers.members]
    p = 0.75 * said[0].softmax(-1) + 0.25 * said[1].softmax(-1)

    def expected() -> tuple[float, float, float]:
        return reference(
            student(batch.inputs),
            said,
            [0.75, 0.25],
            shares_of(strategy.guide, p, of_teacher),
            batch.target.tolist(),
            of_teacher,
            of_student or of_teacher,
            top,
            1.2,
        )

    turns = strategy.turns(student, teachers, batch, progress)
    first = next(turns)
    scaffold, normaliser, spent = expected()
    budget, penalty = (0.05, 1.0) if progress is START else (0.01, 3.0)
    assert first.player == "guide"
    assert {n: v.item() for n, v in first.terms.items()} == pytest.approx(
        {
            "scaffold": 0.7 * scaffold,
            "normaliser": 0.7 * normaliser,
            "budget": penalty * (spent - budget),
        },
        rel=1e-9,
    )
    shares = shares_of(strategy.guide, p, of_teacher)
    assert first.measured["censored"].item() == pytest.approx(math.fsum(shares) / len(shares))
    step(strategy.guide, total(first))

    second = next(turns)
    assert second.player == "student"
    assert set(second.terms) == {"label", "scaffold"}
    assert 0.7 * expected()[0] != pytest.approx(0.7 * scaffold, rel=1e-6)
    assert second.terms["scaffold"].item() == pytest.approx(0.7 * expected()[0], rel=1e-9)
    assert next(turns, None) is None


def test_within_the_budget_nothing_is_paid(
    network: Maker, ensemble: Callable[[int], Ensemble], batch: Batch
) -> None:
    strategy = made(budget=1e6)
    assert next(strategy.turns(network(0), ensemble(1), batch, START)).terms["budget"] == 0.0


def test_each_player_descends_its_own_loss_only(
    network: Maker, ensemble: Callable[[int], Ensemble], batch: Batch
) -> None:
    strategy, student, teachers = made(budget=0.01), network(0), ensemble(2)
    known = copy.deepcopy([network_of(each).state_dict() for each in teachers.members])
    turns = strategy.turns(student, teachers, batch, START)
    total(next(turns)).backward()
    assert all(p.grad is None for p in student.parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in strategy.guide.parameters())
    strategy.guide.zero_grad()
    total(next(turns)).backward()
    assert all(p.grad is None for p in strategy.guide.parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in student.parameters())
    for each, state in zip(teachers.members, known, strict=True):
        assert all(torch.equal(state[n], v) for n, v in network_of(each).state_dict().items())

    players = strategy.players(student)
    assert {id(p) for p in players["guide"]} == {id(p) for p in strategy.guide.parameters()}
    assert {id(p) for p in players["student"]} == {id(p) for p in student.parameters()}
    assert strategy.deliverable(student) is student
    assert list(strategy.predictors(student)) == ["student"]


def gradient(strategy: DiSK, student: nn.Module, teachers: Ensemble, batch: Batch) -> float:
    student.zero_grad()
    _, turn = strategy.turns(student, teachers, batch, START)
    turn.terms["scaffold"].backward()
    grads = [p.grad for p in student.parameters() if p.grad is not None]
    return math.sqrt(sum(g.square().sum().item() for g in grads))


def test_a_censored_sample_hardly_teaches(
    network: Maker, ensemble: Callable[[int], Ensemble], batch: Batch
) -> None:
    strategy, student, teachers = made(top=4), network(0), ensemble(1)
    last = cast(nn.Linear, strategy.guide[-2])
    strengths = []
    for odds in (-30.0, 0.0, 30.0):
        with torch.no_grad():
            last.weight.zero_()
            last.bias.fill_(odds)
        strengths.append(gradient(strategy, student, teachers, batch))
    assert strengths[0] > 2 * strengths[1] > 2 * strengths[2]
    # With nothing censored and all classes this is distillation with soft targets.
    last.bias.data.fill_(-60.0)
    _, turn = strategy.turns(student, teachers, batch, START)
    t = (network_of(teachers.members[0])(batch.inputs) / 4).softmax(-1)
    soft = -(t * (student(batch.inputs) / 4).log_softmax(-1)).sum(-1).mean()
    torch.testing.assert_close(turn.terms["scaffold"], 0.9 * 16 * soft)


def test_a_shift_of_the_teachers_logits_changes_nothing(network: Maker, batch: Batch) -> None:
    class Shifted(nn.Module):
        def __init__(self, by: float) -> None:
            super().__init__()
            self.network = network(9)
            self.by = by

        def forward(self, inputs: Tensor) -> Tensor:
            said: Tensor = self.network(inputs) + self.by
            return said

    values = []
    for by in (0.0, 7.0):
        turns = made().turns(network(0), Ensemble([Frozen(Shifted(by))]), batch, START)
        values.append([turn.terms["scaffold"] for turn in turns])
    torch.testing.assert_close(values[0], values[1])


def test_other_terms_stay_and_soft_may(
    network: Maker, ensemble: Callable[[int], Ensemble], batch: Batch
) -> None:
    _, turn = made(replaced=[]).turns(network(0), ensemble(1), batch, START)
    assert set(turn.terms) == {"label", "soft", "scaffold"}


class Said(nn.Module):
    def __init__(self, logits: list[list[float]], kind: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits, dtype=kind))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.logits


@pytest.mark.parametrize("kind", [torch.float16, torch.float32])
@pytest.mark.parametrize("scale", [0.0, 1e4])
@pytest.mark.parametrize("label", [1, UNLABELLED])
def test_it_stays_finite(kind: torch.dtype, scale: float, label: int) -> None:
    strategy = made(classes=3, top=1).float()
    student = Said([[scale, -scale, 0.0]], kind)
    teacher = Frozen(Said([[-scale, scale, -math.inf]], kind))
    mask = torch.tensor([label != UNLABELLED])
    batch = Batch(torch.zeros(1, 1), torch.tensor([label]), torch.zeros(1, dtype=torch.long), mask)
    for turn in strategy.turns(student, Ensemble([teacher]), batch, START):
        assert all(value.isfinite() for value in turn.terms.values()), turn.player
        assert all(value.dtype == torch.float32 for value in turn.terms.values())
        total(turn).backward()
    assert student.logits.grad is not None
    assert student.logits.grad.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in strategy.guide.parameters())


def test_tokens_are_samples_too(network: Maker, batch: Batch) -> None:
    class Twice(nn.Module):
        def __init__(self, one: nn.Module) -> None:
            super().__init__()
            self.one = one

        def forward(self, inputs: Tensor) -> Tensor:
            return torch.stack([self.one(inputs)] * 2, dim=1)

    assert batch.mask is not None
    both = batch._replace(
        target=torch.stack([batch.target] * 2, 1), mask=torch.stack([batch.mask] * 2, 1)
    )
    strategy = made(budget=0.01)
    alone = list(strategy.turns(network(0), Ensemble([Frozen(network(9))]), batch, START))
    twice = list(
        strategy.turns(Twice(network(0)), Ensemble([Frozen(Twice(network(9)))]), both, START)
    )
    for one, two in zip(alone, twice, strict=True):
        torch.testing.assert_close(one.terms, two.terms)


def test_it_needs_a_teacher_and_a_weighting_that_does_not_wait(
    network: Maker, batch: Batch
) -> None:
    with pytest.raises(ValueError, match="must not wait for the student's step, got Reinforced"):
        made(Reinforced(4))
    with pytest.raises(ValueError, match="at least one teacher, got none"):
        next(made().turns(network(0), Ensemble(), batch, START))
