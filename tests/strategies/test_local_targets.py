from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from ensemble_kd.objectives import Soft, Term
from ensemble_kd.strategies import LocalTargets
from ensemble_kd.teachers import Ensemble, Frozen
from ensemble_kd.types import UNLABELLED, Batch, Progress, Turn
from ensemble_kd.weightings import Fixed, Reinforced, Uniform

START = Progress(0, 0, 0.0)
Maker = Callable[[int], nn.Module]


def prokt_terms() -> dict[str, Term]:
    return {"soft": Term(Soft(temperature=1.0))}


def total(turn: Turn) -> Tensor:
    return torch.stack(list(turn.terms.values())).sum()


def descend(network: nn.Module, loss: Tensor, rate: float = 2.0) -> None:
    """One large step, so that outputs of before and after it differ."""
    network.zero_grad()
    loss.backward()
    with torch.no_grad():
        for parameter in network.parameters():
            assert parameter.grad is not None
            parameter.sub_(rate * parameter.grad)


def soft_cross_entropy(target: Tensor, logits: Tensor) -> Tensor:
    return -(target.detach().softmax(-1) * logits.log_softmax(-1)).sum(-1).mean()


def reference_teacher_loss(own: Tensor, student: Tensor, batch: Batch, pull: float) -> Tensor:
    """(1 - pull) CE(y, p_t) + pull CE(p_s, p_t)."""
    known = batch.target != UNLABELLED
    label = -own[known].log_softmax(-1)[range(int(known.sum())), batch.target[known]].mean()
    return (1 - pull) * label + pull * soft_cross_entropy(student, own)


@pytest.mark.parametrize("pull", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("teachers", [1, 2])
def test_it_trains_like_the_algorithm(
    network: Maker, batch: Batch, pull: float, teachers: int
) -> None:
    """Four batches: the weights stay those of a loop written from the paper."""
    student, moving = network(0), [network(number + 1) for number in range(teachers)]
    strategy = LocalTargets(moving, prokt_terms(), Uniform(), pull=pull, start="scratch")
    own_student, own_moving = copy.deepcopy((student, moving))
    for _ in range(4):
        players = []
        for turn in strategy.turns(student, Ensemble(), batch, START):
            players.append(turn.player)
            stepped = strategy.networks if turn.player == "teacher" else student
            descend(stepped, total(turn))
        assert players == ["teacher", "student"]

        before = own_student(batch.inputs).detach()
        for each in own_moving:
            descend(each, reference_teacher_loss(each(batch.inputs), before, batch, pull))
        learned = own_student(batch.inputs)
        losses = [soft_cross_entropy(each(batch.inputs), learned) for each in own_moving]
        descend(own_student, torch.stack(losses).mean())
        for ours, theirs in zip([student, *moving], [own_student, *own_moving], strict=True):
            for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
                torch.testing.assert_close(p, q)


def test_each_player_descends_its_own_loss_only(network: Maker, batch: Batch) -> None:
    student, moving = network(0), network(1)
    strategy = LocalTargets([moving], prokt_terms(), Uniform(), start="scratch")
    turns = strategy.turns(student, Ensemble(), batch, START)
    total(next(turns)).backward()
    assert all(p.grad is None for p in student.parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in moving.parameters())
    moving.zero_grad()
    total(next(turns)).backward()
    assert all(p.grad is None for p in moving.parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in student.parameters())


def test_the_weighting_merges_the_moving_teachers(network: Maker, batch: Batch) -> None:
    student, moving = network(0), [network(1), network(2)]
    strategy = LocalTargets(moving, prokt_terms(), Fixed([3, 1]), start="scratch")
    _, turn = strategy.turns(student, Ensemble(), batch, START)
    own = student(batch.inputs)
    parts = []
    for each in moving:
        p = each(batch.inputs).softmax(-1)
        parts.append((p * (p.log() - own.log_softmax(-1))).sum(-1).mean())
    torch.testing.assert_close(turn.terms["soft"], 0.75 * parts[0] + 0.25 * parts[1])


def test_the_moving_teachers_start_from_the_frozen_ones(
    network: Maker, ensemble: Callable[[int], Ensemble], batch: Batch
) -> None:
    teachers = ensemble(2)
    strategy = LocalTargets([network(1), network(2)], prokt_terms(), Uniform())
    strategy.begin(network(0), teachers)
    for moving, teacher in zip(strategy.networks, teachers.members, strict=True):
        frozen = cast(Frozen, teacher).network
        torch.testing.assert_close(moving(batch.inputs), frozen(batch.inputs))
        assert all(p.requires_grad for p in moving.parameters())
        assert not any(p.requires_grad for p in frozen.parameters())
        descend(moving, moving(batch.inputs).square().sum())
        assert not torch.equal(moving(batch.inputs), frozen(batch.inputs))


def test_from_scratch_they_keep_their_own_weights(
    network: Maker, ensemble: Callable[[int], Ensemble]
) -> None:
    moving = network(1)
    before = copy.deepcopy(moving.state_dict())
    strategy = LocalTargets([moving], prokt_terms(), Uniform(), start="scratch")
    strategy.begin(network(0), ensemble(1))
    for name, value in moving.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_teacher_on_unlabelled_samples_is_pulled_only(network: Maker, batch: Batch) -> None:
    nobody = torch.full_like(batch.target, UNLABELLED)
    unknown = batch._replace(target=nobody, mask=torch.zeros(7, dtype=torch.bool))
    strategy = LocalTargets([network(1)], prokt_terms(), Uniform(), start="scratch")
    turn = next(strategy.turns(network(0), Ensemble(), unknown, START))
    assert turn.terms["moving/0/label"].item() == 0
    assert turn.terms["moving/0/pull"].item() > 0


def test_identical_networks_leave_the_student_alone(network: Maker, batch: Batch) -> None:
    strategy = LocalTargets([network(0)], prokt_terms(), Uniform(), start="scratch")
    student = network(0)
    _, turn = strategy.turns(student, Ensemble(), batch, START)
    total(turn).backward()
    assert total(turn).item() == pytest.approx(0.0, abs=1e-12)
    for p in student.parameters():
        assert p.grad is not None
        torch.testing.assert_close(p.grad, torch.zeros_like(p.grad))


@pytest.mark.parametrize("size", [1, 7])
def test_saturated_networks_stay_finite(network: Maker, batch: Batch, size: int) -> None:
    few = Batch(batch.inputs[:size], batch.target[:size], batch.index[:size])
    student, moving = network(0), network(1)
    with torch.no_grad():
        for parameter in [*student.parameters(), *moving.parameters()]:
            parameter.mul_(1e3)
    strategy = LocalTargets([moving], prokt_terms(), Uniform(), start="scratch")
    for turn in strategy.turns(student, Ensemble(), few, START):
        total(turn).backward()
        assert total(turn).isfinite()
    for p in [*student.parameters(), *moving.parameters()]:
        assert p.grad is not None
        assert p.grad.isfinite().all()


def test_players_and_predictors(network: Maker) -> None:
    student, moving = network(0), [network(1), network(2)]
    strategy = LocalTargets(moving, prokt_terms(), Uniform())
    players = strategy.players(student)
    assert list(players) == ["teacher", "student"]
    assert [id(p) for p in players["student"]] == [id(p) for p in student.parameters()]
    assert len(players["teacher"]) == 2 * len(players["student"])
    assert list(strategy.predictors(student).values()) == [student, *moving]
    assert list(strategy.predictors(student)) == ["student", "moving/0", "moving/1"]
    assert strategy.deliverable(student) is student


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"networks": []}, "networks must hold at least one teacher, got none"),
        ({"pull": 1.5}, r"pull must be in \[0, 1\], got 1.5"),
        ({"pull": float("nan")}, r"pull must be in \[0, 1\], got nan"),
        ({"start": "pretrained"}, "start must be teacher or scratch, got 'pretrained'"),
        ({"weighting": Reinforced(1)}, "weighting must not wait .* got Reinforced"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], words: str) -> None:
    good: dict[str, Any] = {
        "networks": [nn.Linear(2, 2)],
        "terms": prokt_terms(),
        "weighting": Uniform(),
    }
    with pytest.raises(ValueError, match=words):
        LocalTargets(**{**good, **arguments})


def test_teachers_that_do_not_fit_are_refused(
    network: Maker, ensemble: Callable[[int], Ensemble]
) -> None:
    many = LocalTargets([network(1), network(2)], prokt_terms(), Uniform())
    with pytest.raises(ValueError, match="start must be scratch when 2 teachers move and 1 are"):
        many.begin(network(0), ensemble(1))
    unlike = LocalTargets([nn.Linear(5, 4)], prokt_terms(), Uniform())
    with pytest.raises(ValueError, match=r"moving teacher 0 must have .*teacher/0 .*got another L"):
        unlike.begin(network(0), ensemble(1))


def test_in_a_run_the_teacher_moves_towards_the_student(trained: Callable[..., Any]) -> None:
    """The harder it is pulled, the nearer it ends; the frozen teacher stays what it was."""
    run = [
        *("strategy=local_targets", "teacher.members=[cnn_tiny]", "teacher.epochs=10"),
        *("epochs=4", "controls=[]"),
    ]
    free, pulled = trained(*run, "strategy.pull=0"), trained(*run, "strategy.pull=0.9")
    assert list(pulled.networks) == ["teacher/0", "ensemble", "student", "moving/0"]
    assert set(pulled.curves) >= {
        ("student", "moving/0/label"),
        ("student", "moving/0/pull"),
        ("student", "student/soft"),
    }
    assert distance(pulled) < 0.8 * distance(free)
    assert pulled.accuracies["student"] > 0.6
    frozen = pulled.networks["teacher/0"].state_dict()
    stored = pulled.products["teacher/0"].artefact.network().state_dict()
    assert all(torch.equal(frozen[name], stored[name]) for name in stored)
    moved = pulled.networks["moving/0"].state_dict()
    assert not any(torch.equal(moved[name], stored[name]) for name in stored if "weight" in name)


def distance(done: Any) -> float:
    """Mean distance of the moving teacher from the student on the validation split."""
    apart = []
    with torch.no_grad():
        for batch in done.plan.data.val_dataloader():
            one, other = (done.networks[n](batch.inputs) for n in ("student", "moving/0"))
            apart.append((one.softmax(-1) - other.softmax(-1)).abs().sum(-1))
    return float(torch.cat(apart).mean())
