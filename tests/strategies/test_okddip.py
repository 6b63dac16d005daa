from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ensemble_kd.errors import UserError
from ensemble_kd.objectives import Label, Soft, Term
from ensemble_kd.schedules import RampUp
from ensemble_kd.strategies import OKDDip
from ensemble_kd.strategies.okddip import Attention
from ensemble_kd.teachers import Ensemble
from ensemble_kd.types import UNLABELLED, Batch, Progress, Turn, as_output
from ensemble_kd.weightings import Uniform

START = Progress(0, 0, 0.0)
Maker = Callable[[int], nn.Module]
SPLITS = pytest.mark.parametrize("split", [None, "1"])


def made(
    network: Maker, split: str | None = None, peers: int = 3, **options: Any
) -> tuple[OKDDip, nn.Module]:
    student, others = network(0), [network(number + 1) for number in range(peers)]
    terms = {"label": Term(Label()), "soft": Term(Soft(temperature=3.0))}
    with torch.random.fork_rng():
        torch.manual_seed(7)
        strategy = OKDDip(others, terms, Uniform(), split, factor=2, **options).double()
    with torch.no_grad():  # far enough from equal weights
        strategy.attention.query.weight.mul_(5)
        strategy.attention.key.weight.mul_(5)
    strategy.meet(student)
    return strategy, student


def total(turn: Turn) -> Tensor:
    return torch.stack(list(turn.terms.values())).sum()


def divergence(target: Tensor, own: Tensor) -> Tensor:
    """3^2 KL(target || softmax(own / 3)), a target of probabilities."""
    return 9 * (target * (target.log() - (own / 3).log_softmax(-1))).sum(-1).mean()


def heard(parts: nn.ModuleDict, split: str | None, batch: Batch) -> tuple[list[Tensor], Tensor]:
    """Logits of student and peers, and the peers' features (m, b, d)."""
    networks = [parts["student"], *parts["strategy"].get_submodule("branches.peers").children()]
    features = [
        (networks[0] if split else each).get_submodule("0")(batch.inputs).tanh()
        for each in networks
    ]
    logits = [each.get_submodule("2")(f) for each, f in zip(networks, features, strict=True)]
    return logits, torch.stack(features[1:])


def reference_attention(parts: nn.ModuleDict, features: Tensor) -> list[list[list[Tensor]]]:
    """[a][b][sample]: softmax over b of q_a . k_b, one number at a time."""
    query = parts["strategy"].get_submodule("attention.query").get_parameter("weight")
    key = parts["strategy"].get_submodule("attention.key").get_parameter("weight")
    peers, samples = features.shape[:2]
    found = []
    for a in range(peers):
        scores = [
            [torch.dot(query @ features[a, s], key @ features[b, s]) for s in range(samples)]
            for b in range(peers)
        ]
        sums = [sum(scores[b][s].exp() for b in range(peers)) for s in range(samples)]
        found.append([[scores[b][s].exp() / sums[s] for s in range(samples)] for b in range(peers)])
    return found


def reference_okddip(
    parts: nn.ModuleDict, split: str | None, batch: Batch, mixture: str, targets: str, ramp: float
) -> Tensor:
    """Sum over all branches of cross-entropy and 3^2 KL from their own mixture of the peers."""
    assert batch.mask is not None
    logits, features = heard(parts, split, batch)
    attention = reference_attention(parts, features)
    said = [z if targets == "attached" else z.detach() for z in logits[1:]]
    pooled = [(z / 3).softmax(-1) for z in said] if mixture == "probabilities" else said
    loss = torch.zeros((), dtype=torch.float64)
    for number, z in enumerate(logits):
        loss = loss + F.cross_entropy(z[batch.mask], batch.target[batch.mask])
        if number == 0:
            mixed = torch.stack(pooled).mean(0)
        else:
            rows = [
                sum(attention[number - 1][b][s] * pooled[b][s] for b in range(len(pooled)))
                for s in range(len(z))
            ]
            mixed = torch.stack([row for row in rows if isinstance(row, Tensor)])
        target = mixed if mixture == "probabilities" else (mixed / 3).softmax(-1)
        loss = loss + ramp * divergence(target, z)
    return loss


@SPLITS
@pytest.mark.parametrize("mixture", ["probabilities", "logits"])
@pytest.mark.parametrize("targets", ["detached", "attached"])
def test_loss_and_gradients_are_the_papers(
    network: Maker, batch: Batch, split: str | None, mixture: Any, targets: Any
) -> None:
    strategy, student = made(network, split, mixture=mixture, targets=targets, ramp=RampUp(0.4))
    parts = nn.ModuleDict({"student": student, "strategy": strategy})
    again = copy.deepcopy(parts)
    (turn,) = strategy.turns(student, Ensemble(), batch, Progress(5, 0, 0.2))
    total(turn).backward()
    expected = reference_okddip(again, split, batch, mixture, targets, ramp=math.exp(-1.25))
    expected.backward()
    torch.testing.assert_close(total(turn), expected)
    for (name, ours), theirs in zip(parts.named_parameters(), again.parameters(), strict=True):
        assert ours.grad is not None, name
        torch.testing.assert_close(ours.grad, theirs.grad, msg=name)


@pytest.mark.parametrize("targets", ["detached", "attached"])
def test_query_and_key_receive_gradient(network: Maker, batch: Batch, targets: Any) -> None:
    """The projections appear in the targets only: detaching those would freeze them."""
    strategy, student = made(network, targets=targets)
    (turn,) = strategy.turns(student, Ensemble(), batch, START)
    turn.terms["peer/2/peers_soft"].backward()
    for projection in (strategy.attention.query, strategy.attention.key):
        assert projection.weight.grad is not None
        assert projection.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(("targets", "taught"), [("detached", False), ("attached", True)])
def test_only_attached_peers_receive_gradient_from_those_they_teach(
    network: Maker, batch: Batch, targets: Any, taught: bool
) -> None:
    strategy, student = made(network, targets=targets)
    for name, learner in (("", student), ("peer/1/", strategy.branches.peers[0])):
        for part in (student, strategy):
            part.zero_grad()
        (turn,) = strategy.turns(student, Ensemble(), batch, START)
        turn.terms[f"{name}peers_soft"].backward()
        assert all(p.grad is not None for p in learner.parameters())
        others = [peer for peer in strategy.branches.peers if peer is not learner]
        for other in others:  # whose hidden layers the attention sees
            assert (other.get_submodule("2").get_parameter("weight").grad is not None) == taught
        if name:
            assert all(p.grad is None for p in student.parameters())


def test_the_leader_teaches_nobody(network: Maker, batch: Batch) -> None:
    strategy, student = made(network)
    (before,) = strategy.turns(student, Ensemble(), batch, START)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1.0)
    (after,) = strategy.turns(student, Ensemble(), batch, START)
    for name, value in before.terms.items():
        assert torch.equal(value, after.terms[name]) == name.startswith("peer/"), name


def test_attention_to_itself_is_measured(network: Maker, batch: Batch) -> None:
    strategy, student = made(network)
    (turn,) = strategy.turns(student, Ensemble(), batch, START)
    parts = nn.ModuleDict({"student": student, "strategy": strategy})
    attention = reference_attention(parts, heard(parts, None, batch)[1])
    assert list(turn.measured) == [f"peer/{n}/attention_to_itself" for n in (1, 2, 3)]
    for a, value in enumerate(turn.measured.values()):
        torch.testing.assert_close(value, torch.stack(attention[a][a]).mean())


def test_frozen_teachers_teach_everybody_by_terms_of_their_own(
    network: Maker, ensemble: Callable[[int], Ensemble], batch: Batch
) -> None:
    strategy, student = made(network, peers=2)
    teachers = ensemble(1)
    (turn,) = strategy.turns(student, teachers, batch, START)
    owners = ["", "peer/1/", "peer/2/"]
    assert set(turn.terms) == {f"{o}{t}" for o in owners for t in ("label", "peers_soft", "soft")}
    taught = (teachers.members[0](batch.inputs).logits / 3).softmax(-1)
    for owner, each in zip(owners, [student, *strategy.branches.peers], strict=True):
        expected = divergence(taught, each(batch.inputs))
        torch.testing.assert_close(turn.terms[f"{owner}soft"], expected)


def test_the_leader_is_delivered(network: Maker) -> None:
    strategy, student = made(network)
    assert list(strategy.players(student)) == ["student"]
    assert list(strategy.predictors(student)) == ["student", "peer/1", "peer/2", "peer/3"]
    assert strategy.deliverable(student) is student


def test_a_single_peer_has_only_itself_to_learn_from(network: Maker, batch: Batch) -> None:
    strategy, student = made(network, peers=1)
    (turn,) = strategy.turns(student, Ensemble(), batch, START)
    assert turn.terms["peer/1/peers_soft"].item() == pytest.approx(0.0, abs=1e-12)
    assert turn.terms["peers_soft"].item() > 0


@pytest.mark.parametrize("mixture", ["probabilities", "logits"])
@pytest.mark.parametrize("targets", ["detached", "attached"])
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_saturated_values_stay_finite(
    network: Maker, batch: Batch, mixture: Any, targets: Any, size: float
) -> None:
    strategy, student = made(network, mixture=mixture, targets=targets)
    with torch.no_grad():
        for number, each in enumerate([student, *strategy.branches.peers]):
            each.get_submodule("2").get_parameter("bias")[number] = size
        strategy.attention.query.weight.mul_(1e4)
    (turn,) = strategy.turns(student, Ensemble(), batch, START)
    total(turn).backward()
    assert total(turn).isfinite()
    parameters = [*student.parameters(), *strategy.parameters()]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in parameters)


def test_without_labels_only_the_soft_terms_count(network: Maker, batch: Batch) -> None:
    unknown = torch.full_like(batch.target, UNLABELLED)
    unlabelled = batch._replace(target=unknown, mask=torch.zeros(7, dtype=torch.bool))
    strategy, student = made(network)
    (turn,) = strategy.turns(student, Ensemble(), unlabelled, START)
    for name, value in turn.terms.items():
        assert (value.item() == 0.0) == name.endswith("label"), name


def test_the_tokens_of_a_sample_share_its_attention(network: Maker) -> None:
    inputs = torch.randn(2, 3, 5, dtype=torch.float64)
    tokens = Batch(inputs, torch.zeros(2, 3, dtype=torch.int64), torch.arange(2))
    strategy, student = made(network, peers=2)
    (turn,) = strategy.turns(student, Ensemble(), tokens, START)
    peers = [peer(inputs) for peer in strategy.branches.peers]
    features = torch.stack([p.get_submodule("0")(inputs).tanh() for p in strategy.branches.peers])
    weights = strategy.attention(features.mean(2))[0]
    target = sum(
        w[:, None, None] * (z / 3).softmax(-1) for w, z in zip(weights, peers, strict=True)
    )
    assert isinstance(target, Tensor)
    torch.testing.assert_close(turn.terms["peer/1/peers_soft"], divergence(target, peers[0]))


def test_what_cannot_be_is_refused(network: Maker) -> None:
    with pytest.raises(ValueError, match="mixture must be probabilities or logits, got 'losses'"):
        made(network, mixture="losses")
    with pytest.raises(ValueError, match="targets must be detached or attached, got 'both'"):
        made(network, targets="both")
    with pytest.raises(ValueError, match="temperature must be a positive finite number, got 0"):
        made(network, temperature=0)
    with pytest.raises(ValueError, match=r"weight must be a finite number >= 0, got -1"):
        made(network, soft_weight=-1)
    with pytest.raises(ValueError, match="factor must be >= 1, got 0"):
        Attention(8, 0)
    with pytest.raises(ValueError, match="at least one network"):
        made(network, peers=0)
    unlike = [nn.Linear(5, 4), nn.Linear(3, 4)]
    with pytest.raises(UserError, match=r"features of one size, .*, got 5, 3"):
        OKDDip(list[nn.Module](unlike), {"label": Term(Label())}, Uniform())


def test_the_leader_learns_from_its_peers_on_digits(trained: Callable[..., Any]) -> None:
    """With what they say it ends nearer to their mean than without, and the attention moves."""
    run = ("strategy=okddip", "teacher=none", "controls=[]", "epochs=4", "strategy.ramp=null")
    distances, to_itself = [], []
    for weight in (3, 0):
        done = trained(*run, f"objective.soft_weight={weight}")
        inputs = torch.cat([each.inputs for each in done.plan.data.val_dataloader()])
        with torch.no_grad():
            said = {n: as_output(each(inputs)).logits for n, each in done.networks.items()}
        own = said.pop("student")
        mean = torch.stack([(z / 3).softmax(-1) for z in said.values()]).mean(0)
        distances.append(divergence(mean, own).item())
        to_itself.append(done.curves["student", "peer/1/attention_to_itself"][-1])
        assert done.accuracies["student"] > 0.5
    assert distances[0] < 0.6 * distances[1]
    moved, untaught = to_itself
    assert moved > 0.5
    assert untaught == pytest.approx(1 / 3, abs=0.05)
