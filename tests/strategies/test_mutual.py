from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ensemble_kd.objectives import Label, Soft, Term
from ensemble_kd.strategies import Mutual
from ensemble_kd.teachers import Ensemble
from ensemble_kd.types import Batch, Progress, Turn
from ensemble_kd.weightings import Uniform

START = Progress(0, 0, 0.0)
Maker = Callable[[int], nn.Module]


def dml_terms() -> dict[str, Term]:
    return {"label": Term(Label()), "soft": Term(Soft(temperature=1.0))}


def reference_dml(own: Tensor, others: list[Tensor], batch: Batch) -> Tensor:
    """Equation 8 of the paper: cross-entropy plus the mean KL from the other networks."""
    assert batch.mask is not None
    loss = F.cross_entropy(own[batch.mask], batch.target[batch.mask])
    for other in others:
        p = other.detach().softmax(-1)
        loss = loss + (p * (p.log() - own.log_softmax(-1))).sum(-1).mean() / len(others)
    return loss


def total(turn: Turn) -> Tensor:
    return torch.stack(list(turn.terms.values())).sum()


@pytest.mark.parametrize("peers", [1, 2, 3])
def test_simultaneous_is_the_sum_of_the_papers_losses(
    network: Maker, batch: Batch, peers: int
) -> None:
    student, others = network(0), [network(number + 1) for number in range(peers)]
    strategy = Mutual(others, dml_terms(), Uniform())
    (turn,) = strategy.turns(student, Ensemble(), batch, START)
    total(turn).backward()

    copies = copy.deepcopy([student, *strategy.peers])
    for each in copies:
        each.zero_grad()
    said = [each(batch.inputs) for each in copies]
    losses = [reference_dml(own, [s for s in said if s is not own], batch) for own in said]
    expected = torch.stack(losses).sum()
    expected.backward()
    torch.testing.assert_close(total(turn), expected)
    for ours, theirs in zip([student, *strategy.peers], copies, strict=True):
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad)


def test_sequential_shows_each_network_the_others_after_their_step(
    network: Maker, batch: Batch
) -> None:
    student, peer = network(0), network(1)
    strategy = Mutual([peer], dml_terms(), Uniform(), update="sequential")
    networks = {"student": student, "peer/1": strategy.peers[0]}
    for turn in strategy.turns(student, Ensemble(), batch, START):
        other = networks["peer/1" if turn.player == "student" else "student"]
        own = networks[turn.player]
        expected = reference_dml(own(batch.inputs), [other(batch.inputs)], batch)
        torch.testing.assert_close(total(turn), expected)
        own.zero_grad()
        total(turn).backward()
        with torch.no_grad():  # a large step, so that stale outputs would show
            for parameter in own.parameters():
                assert parameter.grad is not None
                parameter.sub_(5.0 * parameter.grad)


def test_a_peer_gets_no_gradient_from_teaching(network: Maker, batch: Batch) -> None:
    student, peer = network(0), network(1)
    strategy = Mutual([peer], {"soft": Term(Soft(temperature=1.0))}, Uniform(), "sequential")
    turn = next(strategy.turns(student, Ensemble(), batch, START))
    total(turn).backward()
    assert all(p.grad is not None for p in student.parameters())
    assert all(p.grad is None for p in strategy.peers.parameters())


def test_frozen_teachers_teach_beside_the_peers(
    network: Maker, ensemble: Callable[[int], Ensemble], batch: Batch
) -> None:
    student, peer, teachers = network(0), network(1), ensemble(1)
    strategy = Mutual([peer], dml_terms(), Uniform())
    (turn,) = strategy.turns(student, teachers, batch, START)
    voices = [peer(batch.inputs), teachers.members[0](batch.inputs).logits]
    expected = reference_dml(student(batch.inputs), voices, batch)
    torch.testing.assert_close(turn.terms["label"] + turn.terms["soft"], expected)


def test_players_and_predictors(network: Maker) -> None:
    student, peers = network(0), [network(1), network(2)]
    together = Mutual(peers, dml_terms(), Uniform())
    assert list(together.players(student)) == ["student"]
    assert list(together.predictors(student)) == ["student", "peer/1", "peer/2"]
    in_turn = Mutual(peers, dml_terms(), Uniform(), update="sequential")
    players = in_turn.players(student)
    assert list(players) == ["student", "peer/1", "peer/2"]
    everything = [id(p) for parameters in players.values() for p in parameters]
    assert len(everything) == len(set(everything)) == sum(1 for _ in student.parameters()) * 3


def test_identical_networks_add_no_soft_loss(network: Maker, batch: Batch) -> None:
    (turn,) = Mutual([network(0)], dml_terms(), Uniform()).turns(
        network(0), Ensemble(), batch, START
    )
    assert turn.terms["soft"].item() == pytest.approx(0.0, abs=1e-12)


def test_no_peers_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one network"):
        Mutual([], dml_terms(), Uniform())
