"""Features between networks that all learn: connectors of their own for each learner."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ensemble_kd.errors import UserError
from ensemble_kd.objectives import Hint, Label, Matched, Term
from ensemble_kd.strategies import Codistillation, LocalTargets, Mutual
from ensemble_kd.strategies.strategy import Strategy, objectives
from ensemble_kd.teachers import Ensemble, Frozen
from ensemble_kd.types import Batch, Progress
from ensemble_kd.weightings import Uniform

Maker = Callable[[int], nn.Module]
START = Progress(0, 0, 0.0)


def terms() -> dict[str, Term]:
    hint = Matched(Hint(), ["0"], ["1"])
    return {"label": Term(Label()), "hint": Term(hint, weight=0.5)}


def acquainted(
    strategy: Strategy, student: nn.Module, batch: Batch, teachers: Ensemble | None = None
) -> None:
    strategy.meet(student)
    with torch.no_grad():
        strategy.acquaint(student, teachers or Ensemble(), batch)
    strategy.double()


def reference_hint(connector: nn.Module, own: Tensor, other: Tensor) -> Tensor:
    mapped: Tensor = connector(own)
    return (mapped - other).square().mean(dim=1).mean()


@pytest.mark.parametrize("frozen", [0, 2])
def test_each_network_follows_its_peers_and_teachers(
    network: Maker, batch: Batch, frozen: int
) -> None:
    student, peers = network(0), [network(1), network(2)]
    given = [network(10 + number) for number in range(frozen)]
    strategy = Mutual(peers, terms(), Uniform())
    teachers = Ensemble([Frozen(each, ["1"]) for each in given])
    acquainted(strategy, student, batch, teachers)
    found: Any = [part for part in objectives(strategy) if isinstance(part, Matched)]
    assert [len(each.pairs) for each in found] == [2 + frozen] * 3

    (turn,) = strategy.turns(student, teachers, batch, START)
    names = ["hint", "peer/1/hint", "peer/2/hint"]
    everyone: list[Any] = [student, *peers]
    for number, (name, compared) in enumerate(zip(names, found, strict=True)):
        own = everyone[number][:1](batch.inputs)
        others = [*(each for each in everyone if each is not everyone[number]), *given]
        hints = [
            reference_hint(pair.pairs[0].connector, own, other[:2](batch.inputs))
            for pair, other in zip(compared.pairs, others, strict=True)
        ]
        torch.testing.assert_close(turn.terms[name], 0.5 * torch.stack(hints).mean())

    descended = turn.terms["peer/1/hint"]
    (own_gradient,) = torch.autograd.grad(descended, [everyone[1][0].weight], retain_graph=True)
    assert (own_gradient != 0).any()
    others_gradient = torch.autograd.grad(
        descended,
        [*student.parameters(), *peers[1].parameters()],
        allow_unused=True,
    )
    assert all(gradient is None for gradient in others_gradient)


def test_one_after_the_other_each_player_steps_its_own_connectors(
    network: Maker, batch: Batch
) -> None:
    student, peer = network(0), network(1)
    strategy = Mutual([peer], terms(), Uniform(), update="sequential")
    acquainted(strategy, student, batch)
    players = strategy.players(student)
    own = {name: {id(p) for p in parameters} for name, parameters in players.items()}
    assert not own["student"] & own["peer/1"]
    everything = {id(p) for p in (*student.parameters(), *strategy.parameters())}
    assert own["student"] | own["peer/1"] == everything
    for turn in strategy.turns(student, Ensemble(), batch, START):
        gradients = torch.autograd.grad(turn.terms["hint"], players[turn.player], allow_unused=True)
        assert sum(gradient is not None for gradient in gradients) >= 3


def test_copies_of_replicas_and_teachers_that_move_are_followed(
    network: Maker, batch: Batch
) -> None:
    student = network(0)
    stale = Codistillation(
        [network(1)], terms(), Uniform(), burn_in=0, exchange=1, partition="same"
    )
    acquainted(stale, student, batch)
    (turn,) = stale.turns(student, Ensemble(), batch, START)
    assert turn.terms["hint"] > 0
    assert turn.terms["peer/1/hint"] > 0

    moving = LocalTargets([network(1)], terms(), Uniform(), start="scratch")
    acquainted(moving, student, batch)
    first, second = moving.turns(student, Ensemble(), batch, START)
    assert second.terms["hint"] > 0
    assert "hint" not in first.terms


RUN = ("objective=hint", "teacher.members=[cnn_small]", "teacher.epochs=2", "controls=[]")
HINT = ("student", "student/hint")


@pytest.mark.parametrize("strategy", ["mutual", "local_targets"])
def test_a_run_brings_features_nearer(trained: Callable[..., Any], strategy: str) -> None:
    hints = trained(f"strategy={strategy}", "epochs=4", *RUN).curves[HINT]
    assert hints[-1] < 0.9 * hints[0]


def test_replicas_follow_features_that_grow(trained: Callable[..., Any]) -> None:
    """They end nearer to each other than where the term hardly counts."""
    run = ("strategy=codistillation", "strategy.burn_in=0", "strategy.partition=same", "epochs=3")
    near = trained(*run, *RUN, "objective.feature_weight=1.0").curves[HINT][-1]
    far = trained(*run, *RUN, "objective.feature_weight=0.01").curves[HINT][-1] / 0.01
    assert 0 < near < 0.8 * far


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("objective.teacher_layers=[[stages],[pool]]", "must be one list of layers where networks"),
        ("objective=overhaul", "Matched studies its teachers before the training"),
        ("strategy=kdcl", "this strategy"),
    ],
)
def test_what_peers_cannot_offer_is_one_line(
    trained: Callable[..., Any], override: str, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        trained("strategy=mutual", "objective=hint", "teacher.members=[cnn_small]", override)
