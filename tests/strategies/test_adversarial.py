from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ensemble_kd.errors import UserError
from ensemble_kd.objectives import Label, Soft, Term
from ensemble_kd.strategies import Adversarial
from ensemble_kd.strategies.adversarial import Critic
from ensemble_kd.teachers import Ensemble, Frozen
from ensemble_kd.types import UNLABELLED, Batch, Progress, Turn
from ensemble_kd.weightings import Learned, Uniform

START = Progress(0, 0, 0.0)
INPUTS = (1, 6, 6)
LR = {"student": 0.5, "critic": 0.3, "generator": 0.2}


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
) -> tuple[Adversarial, nn.Module]:
    student, others = network(0), [network(1)] if peers is None else peers
    strategy = Adversarial(others, terms or published(), Uniform(), INPUTS, **options)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        strategy.meet(student)
    return strategy, student


def total(turn: Turn) -> Tensor:
    return torch.stack(list(turn.terms.values())).sum()


def played(turns: Iterator[Turn], strategy: Adversarial, student: nn.Module) -> Iterator[Turn]:
    """Each turn, after which its player has taken a step down its gradient."""
    players = strategy.players(student)
    for turn in turns:
        student.zero_grad()
        strategy.zero_grad()
        total(turn).backward()
        yield turn
        with torch.no_grad():
            for parameter in players[turn.player]:
                if parameter.grad is not None:
                    parameter.sub_(LR[turn.player] * parameter.grad)


def divergence(target: Tensor, own: Tensor) -> Tensor:
    """3^2 KL(target || own), both softened by 3."""
    p, log_q = (target / 3).softmax(-1), (own / 3).log_softmax(-1)
    return 9 * (p * (p.log() - log_q)).sum(-1).mean()


def reference_maps(parts: nn.ModuleDict, batch: Batch) -> list[Tensor]:
    """The maps after tanh; those of another size than the student's averaged and projected."""
    networks = [parts["student"], *parts["strategy"].get_submodule("branches.peers").children()]
    maps = [each.get_submodule("0")(batch.inputs).tanh() for each in networks]
    side = min(each.shape[-1] for each in maps)
    maps = [F.avg_pool2d(each, each.shape[-1] // side) for each in maps]
    regressors = parts["strategy"].get_submodule("transfer.regressors").children()
    return [
        each if each.shape[1] == maps[0].shape[1] else regressor(each)
        for regressor, each in zip(regressors, maps, strict=True)
    ]


def reference_critic(critic: nn.Module, maps: Tensor) -> Tensor:
    """The probability that the maps are another's."""
    weights = dict(critic.named_parameters())
    for layer in ("first", "second"):
        maps = F.conv2d(maps, weights[f"{layer}.weight"], weights[f"{layer}.bias"], padding=1)
        maps = torch.where(maps > 0, maps, 0.2 * maps)
    score = maps.mean((2, 3)) @ weights["score.weight"].T + weights["score.bias"]
    return 1 / (1 + (-score).exp())


def reference_turn(player: str, parts: nn.ModuleDict, batch: Batch) -> Tensor:
    """The paper's loss of one turn, with everything as it is now."""
    assert batch.mask is not None
    critics = list(parts["strategy"].get_submodule("critics").children())
    loss = torch.zeros((), dtype=torch.float64)
    if player == "student":
        networks = [parts["student"], *parts["strategy"].get_submodule("branches.peers").children()]
        logits = [each(batch.inputs) for each in networks]
        for k, z in enumerate(logits):
            loss = loss + F.cross_entropy(z[batch.mask], batch.target[batch.mask])
            loss = loss + divergence(logits[k - 1].detach(), z)
        return loss
    maps = reference_maps(parts, batch)
    for k, critic in enumerate(critics):
        if player == "critic":
            other, own = maps[k - 1].detach(), maps[k].detach()
            loss = loss + ((1 - reference_critic(critic, other)) ** 2).mean()
            loss = loss + (reference_critic(critic, own) ** 2).mean()
        else:
            loss = loss + ((1 - reference_critic(critic, maps[k])) ** 2).mean()
    return loss


PEERS = {
    "one like the student": lambda: [network(1)],
    "two in a cycle": lambda: [network(1), network(2)],
    "an unlike one": lambda: [network(1, channels=5, stride=2)],
}


@pytest.mark.parametrize("peers", PEERS)
def test_each_turn_descends_the_papers_loss(images: Batch, peers: str) -> None:
    """With everything as the turns before have left it, and no gradient for anybody else."""
    strategy, student = made(PEERS[peers]())
    parts = nn.ModuleDict({"student": student, "strategy": strategy})
    order = []
    for turn in played(strategy.turns(student, Ensemble(), images, START), strategy, student):
        order.append(turn.player)
        again = copy.deepcopy(parts)
        again.zero_grad()
        expected = reference_turn(turn.player, again, images)
        expected.backward()
        torch.testing.assert_close(total(turn), expected)
        stepped = {id(p) for p in strategy.players(student)[turn.player]}
        for (name, ours), theirs in zip(parts.named_parameters(), again.parameters(), strict=True):
            if id(ours) in stepped and theirs.grad is not None:
                assert ours.grad is not None, name
                torch.testing.assert_close(ours.grad, theirs.grad, msg=name)
            else:
                assert ours.grad is None, name
    assert order == ["student", "critic", "generator"]


def test_the_turns_are_the_players(images: Batch) -> None:
    strategy, student = made([network(1, channels=5)])
    players = strategy.players(student)
    turns = list(strategy.turns(student, Ensemble(), images, START))
    assert [turn.player for turn in turns] == list(players)
    assert list(turns[1].terms) == ["critic/student", "critic/peer/1"]
    assert list(turns[2].terms) == ["student/adversarial", "peer/1/adversarial"]
    ids = {name: {id(p) for p in own} for name, own in players.items()}
    assert strategy.transfer is not None
    transfer = {id(p) for p in strategy.transfer.parameters()}
    assert len(transfer) == 2
    assert ids["student"] < ids["generator"] == ids["student"] | transfer
    assert not ids["critic"] & ids["generator"]
    assert ids["critic"] == {id(p) for p in strategy.critics.parameters()}
    assert all(p.requires_grad for p in strategy.parameters())


def test_a_weighting_that_learns_is_stepped_with_the_outputs() -> None:
    weighting = Learned(4)
    strategy = Adversarial([network(1)], published(), weighting, INPUTS)
    strategy.meet(network(0))
    own = {id(p) for p in weighting.parameters()}
    for name, parameters in strategy.players(network(0)).items():
        assert bool(own & {id(p) for p in parameters}) == (name == "student"), name


def test_who_teaches_in_the_cycle_gets_no_gradient(
    images: Batch, distance: dict[str, Term]
) -> None:
    strategy, student = made([network(1), network(2)], distance)
    turn = next(strategy.turns(student, Ensemble(), images, START))
    first, last = strategy.branches.peers
    expected = (student(images.inputs) - last(images.inputs)).square().sum(-1).mean()
    torch.testing.assert_close(turn.terms["distance"], expected)
    turn.terms["peer/1/distance"].backward()
    assert all(p.grad is not None for p in first.parameters())
    assert all(p.grad is None for p in [*student.parameters(), *last.parameters()])


def test_frozen_teachers_teach_beside(images: Batch) -> None:
    strategy, student = made()
    teacher = network(100)
    before = copy.deepcopy(teacher.state_dict())
    turns = strategy.turns(student, Ensemble([Frozen(teacher)]), images, START)
    own, peer = student(images.inputs), strategy.branches.peers[0](images.inputs)
    expected = (divergence(peer, own) + divergence(teacher(images.inputs), own)) / 2
    for turn in played(turns, strategy, student):
        if turn.player == "student":
            torch.testing.assert_close(turn.terms["soft"], expected)
    assert all(torch.equal(t, before[name]) for name, t in teacher.state_dict().items())


def test_what_is_reported_and_delivered() -> None:
    strategy, student = made([network(1), network(2)])
    named = strategy.predictors(student)
    assert list(named) == ["student", "peer/1", "peer/2"]
    assert strategy.deliverable(student) is student is named["student"]


def test_a_critic_cannot_tell_identical_networks_apart(images: Batch) -> None:
    strategy, student = made([network(0)])
    student_turn, critic_turn, _ = strategy.turns(student, Ensemble(), images, START)
    assert student_turn.terms["soft"].item() == pytest.approx(0.0, abs=1e-12)
    for value in critic_turn.terms.values():
        assert value.item() >= 0.5  # (1 - p)^2 + p^2


@pytest.mark.parametrize("size", [1e4, -1e4])
@pytest.mark.parametrize("rows", [1, 7])
def test_saturated_values_and_a_batch_of_one_stay_finite(
    images: Batch, size: float, rows: int
) -> None:
    strategy, student = made()
    with torch.no_grad():
        for number, part in enumerate([student, *strategy.branches.peers]):
            part.get_submodule("4").get_parameter("bias")[number] = size
        for critic in strategy.critics:
            critic.get_submodule("score").get_parameter("bias").fill_(size)
    known = None if images.mask is None else images.mask[:rows]
    few = Batch(images.inputs[:rows], images.target[:rows], images.index[:rows], known)
    for turn in played(strategy.turns(student, Ensemble(), few, START), strategy, student):
        assert total(turn).isfinite()
        gradients = [p.grad for p in strategy.players(student)[turn.player] if p.grad is not None]
        assert gradients
        assert all(gradient.isfinite().all() for gradient in gradients)


def test_without_labels_the_label_terms_are_zero(images: Batch) -> None:
    unknown = torch.full_like(images.target, UNLABELLED)
    unlabelled = images._replace(target=unknown, mask=torch.zeros(7, dtype=torch.bool))
    strategy, student = made()
    for turn in strategy.turns(student, Ensemble(), unlabelled, START):
        for name, value in turn.terms.items():
            assert (value.item() == 0.0) == name.endswith("label"), name


def test_the_critic_tells_by_probability() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        critic, maps = Critic(3).double(), torch.randn(5, 3, 4, 4, dtype=torch.float64)
    said = critic(maps)
    assert said.shape == (5, 1)
    torch.testing.assert_close(said, reference_critic(critic, maps))


def test_what_cannot_be_is_refused(images: Batch) -> None:
    with pytest.raises(ValueError, match="layers must name one module per network, 2 in all"):
        made(layers=["0"])
    with pytest.raises(ValueError, match="at least one network"):
        made([])
    with pytest.raises(UserError, match="has no module '9'"):
        made(layers=["0", "9"])
    with pytest.raises(UserError, match="expected a convolutional network"):
        made([nn.Sequential(nn.Flatten(), nn.Linear(36, 4)).double()])
    fresh = Adversarial([network(1)], published(), Uniform(), INPUTS)
    with pytest.raises(ValueError, match="must meet the student"):
        fresh.players(network(0))


def test_maps_learn_to_pass_on_digits(trained: Callable[..., Any]) -> None:
    """Critics with a large learning rate tell the networks apart, until these mind."""
    run = ("strategy=adversarial", "teacher=none", "controls=[]", "epochs=3")
    told, fooled, accuracies = [], [], []
    for lr in (2e-5, 1e-2):
        done = trained(
            *run,
            "strategy.optimizers.critic.lr=0.01",
            "strategy.optimizers.critic.optimizer.weight_decay=0",
            "strategy.optimizers.generator.optimizer.weight_decay=0",
            f"strategy.optimizers.generator.lr={lr}",
        )
        told.append(done.curves["student", "critic/student"][-1])
        fooled.append(done.curves["student", "student/adversarial"][-1])
        accuracies.append(done.accuracies["student"])
    assert told[0] < 0.1 < 0.3 < told[1]
    assert fooled[1] < 0.6 < 0.9 < fooled[0]
    assert accuracies[0] > 0.4
