from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ensemble_kd.objectives import Label, Soft, Term
from ensemble_kd.strategies import Codistillation, Mutual
from ensemble_kd.teachers import Ensemble
from ensemble_kd.types import UNLABELLED, Batch, Progress, Turn
from ensemble_kd.weightings import Reinforced, Uniform

START = Progress(0, 0, 0.0)
Maker = Callable[[int], nn.Module]


def anil_terms() -> dict[str, Term]:
    soft = Soft(temperature=1.0, merge="probabilities")
    return {"label": Term(Label()), "soft": Term(soft)}


def met(student: nn.Module, peers: list[nn.Module], **arguments: Any) -> Codistillation:
    settings = {"burn_in": 0, "exchange": 1, "partition": "same", **arguments}
    strategy = Codistillation(peers, anil_terms(), Uniform(), **settings)
    strategy.meet(student)
    return strategy


def at(step: int) -> Progress:
    return Progress(step, 0, 0.0)


def total(turn: Turn) -> Tensor:
    return torch.stack(list(turn.terms.values())).sum()


def play(strategy: Codistillation, student: nn.Module, batch: Batch, step: int) -> Turn:
    (turn,) = strategy.turns(student, Ensemble(), batch, at(step))
    return turn


def descend(networks: list[nn.Module], loss: Tensor) -> None:
    """One large step, so that a stale copy differs from what it is a copy of."""
    for network in networks:
        network.zero_grad()
    loss.backward()
    with torch.no_grad():
        for network in networks:
            for parameter in network.parameters():
                if parameter.grad is not None:
                    parameter.sub_(2.0 * parameter.grad)


def reference_loss(own: Tensor, others: list[Tensor], batch: Batch) -> Tensor:
    """Algorithm 1: cross-entropy with the labels, and with the mean of the others' predictions."""
    assert batch.mask is not None
    loss = -own[batch.mask].log_softmax(-1)[range(4), batch.target[batch.mask]].mean()
    if others:
        mean = sum(other.softmax(-1) for other in others) / len(others)
        loss = loss - (mean * own.log_softmax(-1)).sum(-1).mean()
    return loss


@pytest.mark.parametrize(("burn_in", "exchange"), [(0, 1), (0, 3), (2, 3), (4, 1), (3, 100)])
def test_it_trains_like_the_algorithm(
    network: Maker, batch: Batch, burn_in: int, exchange: int
) -> None:
    """Nine steps of three replicas: their weights stay those of a loop written from the paper."""
    student, peers = network(0), [network(1), network(2)]
    strategy = met(student, peers, burn_in=burn_in, exchange=exchange)
    replicas = copy.deepcopy([student, *peers])
    stale = copy.deepcopy(replicas)
    for step in range(9):
        descend([student, *peers], total(play(strategy, student, batch, step)))

        if step in range(burn_in, 9, exchange):
            stale = copy.deepcopy(replicas)
        losses = []
        for number, replica in enumerate(replicas):
            others = [each(batch.inputs).detach() for each in stale]
            del others[number]
            heard = others if step >= burn_in else []
            losses.append(reference_loss(replica(batch.inputs), heard, batch))
        descend(replicas, torch.stack(losses).sum())
        for ours, theirs in zip([student, *peers], replicas, strict=True):
            for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
                torch.testing.assert_close(p, q)


def test_without_staleness_it_is_mutual_learning_from_averaged_targets(
    network: Maker, batch: Batch
) -> None:
    student, peers = network(0), [network(1), network(2)]
    codistilled = play(met(student, peers), student, batch, 0)
    (mutual,) = Mutual(peers, anil_terms(), Uniform()).turns(student, Ensemble(), batch, START)
    assert list(codistilled.terms) == list(mutual.terms)
    for name, value in mutual.terms.items():
        torch.testing.assert_close(codistilled.terms[name], value)


def test_an_accumulated_step_is_one_step(network: Maker, batch: Batch) -> None:
    student = network(0)
    strategy = met(student, [network(1)], burn_in=2, exchange=2)
    copied = []
    for number in range(16):
        with torch.no_grad():
            student[0].weight.fill_(number)  # type: ignore[index]
        taught = "soft" in play(strategy, student, batch, number // 3).terms
        assert taught == (number >= 6)
        assert strategy.copies is not None
        copied.append(int(strategy.copies.networks[0][0].weight[0, 0]))  # type: ignore[index]
    assert copied[6:] == [6] * 6 + [12] * 4


def test_the_statistics_of_batch_norm_travel_and_rest_in_between() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = 3 + torch.randn(8, 5, generator=generator)
    batch = Batch(inputs, torch.arange(8) % 4, torch.arange(8))
    student, peer = (nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 4)) for _ in range(2))
    strategy = met(student, [peer], exchange=3)
    assert strategy.copies is not None
    copies = strategy.copies.networks
    for step in range(7):
        before = copy.deepcopy([student.state_dict(), peer.state_dict()])
        strategy.train()  # as the trainer does
        (turn,) = strategy.turns(student, Ensemble(), batch, at(step))
        if step % 3 == 0:
            for state, stale in zip(before, copies, strict=True):
                for name, value in stale.state_dict().items():
                    assert torch.equal(value, state[name]), name
            kept = copy.deepcopy(copies.state_dict())
        descend([student, peer], total(turn))
        for name, value in copies.state_dict().items():
            assert torch.equal(value, kept[name]), name
    assert copies[0][0].num_batches_tracked.item() == 6  # type: ignore[index]
    assert copies[0][0].running_mean.mean().item() > 1  # type: ignore[index]


def test_copies_receive_no_gradient_and_are_part_of_the_state(network: Maker, batch: Batch) -> None:
    student, peer = network(0), network(1)
    strategy = met(student, [peer])
    total(play(strategy, student, batch, 0)).backward()
    assert strategy.copies is not None
    assert all(p.grad is None for p in strategy.copies.parameters())
    for each in (student, peer):
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in each.parameters())
    (player,) = strategy.players(student).values()
    assert len(player) == 2 * len(list(student.parameters()))
    assert any(name.startswith("copies.") for name in strategy.state_dict())


def test_predictors_are_the_replicas(network: Maker) -> None:
    student, peers = network(0), [network(1), network(2)]
    strategy = met(student, peers)
    assert list(strategy.predictors(student).values()) == [student, *peers]
    assert list(strategy.predictors(student)) == ["student", "peer/1", "peer/2"]
    assert strategy.deliverable(student) is student
    assert strategy.views == 1


def large(size: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(size, 5, generator=generator, dtype=torch.float64)
    return Batch(inputs, torch.arange(size) % 4, torch.arange(size) + 1000)


class Remembering(nn.Module):
    """A network that keeps the last inputs that it was trained on."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.seen: list[list[float]] = []

    def forward(self, inputs: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            self.seen = inputs.tolist()
        said: Tensor = self.inner(inputs)
        return said


def test_disjoint_replicas_share_a_batch_by_the_index_of_its_samples(network: Maker) -> None:
    batch = large(300)
    replicas = [Remembering(network(seed)) for seed in range(3)]
    student, *peers = replicas
    strategy = met(student, list(peers), partition="disjoint", seed=5)
    play(strategy, student, batch, 0)
    shares = [{tuple(row) for row in replica.seen} for replica in replicas]
    assert sum(len(share) for share in shares) == len(set.union(*shares)) == 300
    assert all(75 < len(share) < 125 for share in shares)

    order = torch.randperm(300, generator=torch.Generator().manual_seed(2))[:100]
    some = Batch(batch.inputs[order], batch.target[order], batch.index[order])
    play(strategy, student, some, 1)
    for replica, share in zip(replicas, shares, strict=True):
        assert {tuple(row) for row in replica.seen} <= share

    other = met(student, list(peers), partition="disjoint", seed=6)
    play(other, student, batch, 0)
    assert {tuple(row) for row in student.seen} != shares[0]


def test_a_disjoint_replica_learns_from_its_own_samples(
    network: Maker, ensemble: Callable[[int], Ensemble]
) -> None:
    """What the others' copies and the frozen teachers say is said about the same samples."""
    student, peer, teachers, batch = Remembering(network(0)), network(1), ensemble(1), large(40)
    strategy = met(student, [peer], partition="disjoint")
    (turn,) = strategy.turns(student, teachers, batch, at(0))
    inputs = torch.tensor(student.seen, dtype=torch.float64)
    rows = [batch.inputs.tolist().index(row) for row in inputs.tolist()]
    own = student(inputs)
    target = sum(
        said.softmax(-1) / 2 for said in (peer(inputs), teachers.members[0](inputs).logits)
    )
    soft = (target * (target.log() - own.log_softmax(-1))).sum(-1).mean()
    label = -own.log_softmax(-1)[range(len(rows)), batch.target[rows]].mean()
    torch.testing.assert_close(turn.terms["soft"], soft)
    torch.testing.assert_close(turn.terms["label"], label)


def test_teachers_are_silent_during_the_burn_in(
    network: Maker, ensemble: Callable[[int], Ensemble], batch: Batch
) -> None:
    student, teachers = network(0), ensemble(1)
    strategy = met(student, [network(1)], burn_in=1)
    names = [list(next(strategy.turns(student, teachers, batch, at(n))).terms) for n in (0, 1)]
    assert names == [
        ["label", "peer/1/label"],
        ["label", "soft", "peer/1/label", "peer/1/soft"],
    ]


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("burn_in", [0, 1])
def test_a_replica_without_samples_waits(network: Maker, size: int, burn_in: int) -> None:
    """Also with BatchNorm, which cannot normalise a single sample."""
    replicas = [nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 4)).double() for _ in range(3)]
    student, *peers = replicas
    strategy = met(student, list(peers), partition="disjoint", burn_in=burn_in)
    turn = play(strategy, student, large(size), 0)
    whole = play(strategy, student, large(300), 0)
    assert list(turn.terms) == list(whole.terms)
    total(turn).backward()
    assert total(turn).isfinite()
    idle = [all(not p.grad.any() for p in r.parameters() if p.grad is not None) for r in replicas]
    assert sum(idle) >= 2
    assert all(p.grad is not None for replica in replicas for p in replica.parameters())


def test_saturated_networks_stay_finite(network: Maker, batch: Batch) -> None:
    nobody = torch.full_like(batch.target, UNLABELLED)
    unknown = batch._replace(target=nobody, mask=torch.zeros(7, dtype=torch.bool))
    student, peer = network(0), network(1)
    with torch.no_grad():
        for parameter in [*student.parameters(), *peer.parameters()]:
            parameter.mul_(1e3)
    for samples in (batch, unknown):
        turn = play(met(student, [peer]), student, samples, 0)
        total(turn).backward()
        assert total(turn).isfinite()
        for p in [*student.parameters(), *peer.parameters()]:
            assert p.grad is not None
            assert p.grad.isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"peers": []}, "at least one network, got none"),
        ({"burn_in": -1}, "burn_in must be an integer >= 0, got -1"),
        ({"exchange": 0}, "exchange must be an integer >= 1, got 0"),
        ({"partition": "own"}, "partition must be disjoint or same, got 'own'"),
        ({"terms": {"soft": Term(Soft())}}, "burn_in must be 0 when no term .* got 100"),
        ({"weighting": Reinforced(1)}, "weighting must not wait .* got Reinforced"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], words: str) -> None:
    good: dict[str, Any] = {
        "peers": [nn.Linear(2, 2)],
        "terms": anil_terms(),
        "weighting": Uniform(),
    }
    with pytest.raises(ValueError, match=words):
        Codistillation(**{**good, **arguments})


def test_it_must_meet_the_student_first(network: Maker, batch: Batch) -> None:
    strategy = Codistillation([network(1)], anil_terms(), Uniform(), burn_in=0)
    with pytest.raises(ValueError, match="must meet the student"):
        next(strategy.turns(network(0), Ensemble(), batch, START))
