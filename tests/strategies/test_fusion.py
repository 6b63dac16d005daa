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
from ensemble_kd.networks.fused import Fused
from ensemble_kd.objectives import Label, Soft, Term
from ensemble_kd.schedules import RampUp
from ensemble_kd.strategies import Fusion
from ensemble_kd.teachers import Ensemble, Frozen
from ensemble_kd.types import UNLABELLED, Batch, Progress, Turn, as_output
from ensemble_kd.weightings import Uniform

START = Progress(0, 0, 0.0)
INPUTS = (1, 6, 6)


def network(seed: int, channels: int = 3, stride: int = 1) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, channels, 3, stride, padding=1),
            nn.Tanh(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(channels, 4),
        ).double()


def published() -> dict[str, Term]:
    return {"label": Term(Label()), "soft": Term(Soft(temperature=3.0))}


def made(
    peers: list[nn.Module] | None = None, terms: dict[str, Term] | None = None, **options: Any
) -> tuple[Fusion, nn.Module]:
    student, others = network(0), [network(1)] if peers is None else peers
    strategy = Fusion(others, terms or published(), Uniform(), INPUTS, 4, **options)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        strategy.meet(student)
    return strategy, student


def total(turn: Turn) -> Tensor:
    return torch.stack(list(turn.terms.values())).sum()


def divergence(target: Tensor, own: Tensor) -> Tensor:
    """3^2 KL(target || own), both softened by 3."""
    p, log_q = (target / 3).softmax(-1), (own / 3).log_softmax(-1)
    return 9 * (p * (p.log() - log_q)).sum(-1).mean()


def reference_ffl(parts: nn.ModuleDict, batch: Batch, ramp: float) -> Tensor:
    """CE of all and of the fused, KL(z_f || z_k) for each, and KL(mean of z_k || z_f)."""
    assert batch.mask is not None
    networks = [parts["student"], *parts["strategy"].get_submodule("branches.peers").children()]
    maps = [each.get_submodule("0")(batch.inputs).tanh() for each in networks]
    logits = [
        each.get_submodule("4")(features.mean((2, 3)))
        for each, features in zip(networks, maps, strict=True)
    ]
    fused = parts["strategy"].get_submodule("fuser")(maps)
    loss = F.cross_entropy(fused[batch.mask], batch.target[batch.mask])
    for z in logits:
        loss = loss + F.cross_entropy(z[batch.mask], batch.target[batch.mask])
        loss = loss + ramp * divergence(fused.detach(), z)
    mean = torch.stack([z.detach() for z in logits]).sum(0) / len(logits)
    return loss + ramp * divergence(mean, fused)


PEERS = {
    "one like the student": lambda: [network(1)],
    "two": lambda: [network(1), network(2)],
    "an unlike one": lambda: [network(1, channels=5, stride=2)],
}


@pytest.mark.parametrize("peers", PEERS)
def test_loss_and_gradients_are_the_papers(images: Batch, peers: str) -> None:
    strategy, student = made(PEERS[peers](), ramp=RampUp(0.4))
    parts = nn.ModuleDict({"student": student, "strategy": strategy})
    again = copy.deepcopy(parts)
    (turn,) = strategy.turns(student, Ensemble(), images, Progress(5, 0, 0.2))
    total(turn).backward()
    expected = reference_ffl(again, images, math.exp(-1.25))
    expected.backward()
    torch.testing.assert_close(total(turn), expected)
    for (name, ours), theirs in zip(parts.named_parameters(), again.parameters(), strict=True):
        assert ours.grad is not None, name
        torch.testing.assert_close(ours.grad, theirs.grad, msg=name)


def test_those_who_teach_get_no_gradient(images: Batch, distance: dict[str, Term]) -> None:
    strategy, student = made(terms=distance)
    peer, fuser = strategy.branches.peers[0], strategy.fuser
    assert fuser is not None
    (turn,) = strategy.turns(student, Ensemble(), images, START)
    assert list(turn.terms) == ["distance", "peer/1/distance", "fused/distance"]
    turn.terms["peer/1/distance"].backward()
    assert all(p.grad is not None for p in peer.parameters())
    assert all(p.grad is None for p in [*student.parameters(), *fuser.parameters()])

    (turn,) = strategy.turns(student, Ensemble(), images, START)
    peer.zero_grad()
    turn.terms["fused/distance"].backward()
    assert all(p.grad is not None for p in fuser.parameters())
    for each in (student, peer):  # through their feature maps alone
        assert each.get_submodule("0").get_parameter("weight").grad is not None
        assert each.get_submodule("4").get_parameter("weight").grad is None


def test_frozen_teachers_teach_everybody_beside(images: Batch) -> None:
    strategy, student = made()
    teacher = network(100)
    before = copy.deepcopy(teacher.state_dict())
    (turn,) = strategy.turns(student, Ensemble([Frozen(teacher)]), images, START)
    own, fused, taught = student(images.inputs), strategy._fused(student), teacher(images.inputs)
    expected = (divergence(fused(images.inputs), own) + divergence(taught, own)) / 2
    torch.testing.assert_close(turn.terms["soft"], expected)
    total(turn).backward()
    assert all(torch.equal(t, before[name]) for name, t in teacher.state_dict().items())


def test_what_is_reported_and_delivered(images: Batch) -> None:
    strategy, student = made([network(1), network(2)])
    assert list(strategy.players(student)) == ["student"]
    named = strategy.predictors(student)
    assert list(named) == ["student", "peer/1", "peer/2", "fused"]
    assert strategy.deliverable(student) is student is named["student"]

    strategy, student = made([network(1), network(2)], deliver="fused")
    named = strategy.predictors(student)
    assert list(named) == ["student", "peer/0", "peer/1", "peer/2"]
    assert named["peer/0"] is student
    delivered = strategy.deliverable(student)
    assert isinstance(delivered, Fused)
    (turn,) = strategy.turns(student, Ensemble(), images, START)
    assert images.mask is not None
    said = delivered(images.inputs)
    label = F.cross_entropy(said[images.mask], images.target[images.mask])
    torch.testing.assert_close(turn.terms["fused/label"], label)
    student.eval()
    strategy.eval()
    assert not any(module.training for module in strategy.deliverable(student).modules())


def test_the_maps_can_be_named(images: Batch) -> None:
    strategy, student = made(layers=["0", "1"])
    assert strategy.places == ["0", "1"]
    said = strategy.predictors(student)["fused"](images.inputs)
    peer = strategy.branches.peers[0]
    maps = [part.get_submodule("0")(images.inputs) for part in (student, peer)]
    assert strategy.fuser is not None
    torch.testing.assert_close(said, strategy.fuser([maps[0], maps[1].tanh()]))


@pytest.mark.parametrize("size", [1e4, -1e4])
@pytest.mark.parametrize("rows", [1, 7])
def test_saturated_logits_and_a_batch_of_one_stay_finite(
    images: Batch, size: float, rows: int
) -> None:
    strategy, student = made()
    assert strategy.fuser is not None
    with torch.no_grad():
        parts = [(student, "4"), (strategy.branches.peers[0], "4"), (strategy.fuser, "classifier")]
        for number, (part, last) in enumerate(parts):
            part.get_submodule(last).get_parameter("bias")[number] = size
    known = None if images.mask is None else images.mask[:rows]
    few = Batch(images.inputs[:rows], images.target[:rows], images.index[:rows], known)
    (turn,) = strategy.turns(student, Ensemble(), few, START)
    total(turn).backward()
    assert total(turn).isfinite()
    parameters = strategy.players(student)["student"]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in parameters)


def test_without_labels_only_the_soft_terms_count(images: Batch) -> None:
    unknown = torch.full_like(images.target, UNLABELLED)
    unlabelled = images._replace(target=unknown, mask=torch.zeros(7, dtype=torch.bool))
    strategy, student = made()
    (turn,) = strategy.turns(student, Ensemble(), unlabelled, START)
    for name, value in turn.terms.items():
        assert (value.item() == 0.0) == name.endswith("label"), name


def test_what_cannot_be_is_refused(images: Batch) -> None:
    with pytest.raises(ValueError, match="deliver must be student or fused, got 'all'"):
        made(deliver="all")
    with pytest.raises(ValueError, match="layers must name one module per network, 2 in all"):
        made(layers=["0"])
    with pytest.raises(ValueError, match="at least one network"):
        made([])
    with pytest.raises(UserError, match="has no module '9'"):
        made(layers=["9", "0"])
    with pytest.raises(UserError, match="expected a convolutional network"):
        made([nn.Sequential(nn.Flatten(), nn.Linear(36, 4)).double()])
    fresh = Fusion([network(1)], published(), Uniform(), INPUTS, 4)
    with pytest.raises(ValueError, match="must meet the student"):
        list(fresh.predictors(network(0)))


def test_networks_and_fused_classifier_come_together_on_digits(trained: Callable[..., Any]) -> None:
    """With what they say to each other, the student ends nearer to the fused than without."""
    run = ("strategy=fusion", "teacher=none", "controls=[]", "epochs=4", "strategy.ramp=null")
    distances = []
    for weight in (3, 0):
        done = trained(*run, f"objective.soft_weight={weight}")
        inputs = torch.cat([each.inputs for each in done.plan.data.val_dataloader()])
        with torch.no_grad():
            own, fused = (
                as_output(done.networks[name](inputs)).logits for name in ("student", "fused")
            )
        distances.append(divergence(fused, own).item())
        assert done.accuracies["student"] > 0.5
    assert distances[0] < 0.6 * distances[1]
