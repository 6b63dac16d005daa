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
from ensemble_kd.schedules import RampUp, Schedule
from ensemble_kd.strategies import Collaborative
from ensemble_kd.teachers import Ensemble
from ensemble_kd.types import UNLABELLED, Batch, Progress, Turn, as_output
from ensemble_kd.weightings import Uniform

START = Progress(0, 0, 0.0)
BETA = 0.4
Maker = Callable[[int], nn.Module]


def published() -> dict[str, Term]:
    soft = Term(Soft(temperature=3.0), weight=1 - BETA)
    return {"label": Term(Label(), weight=BETA), "soft": soft}


def made(
    network: Maker,
    split: str | None,
    peers: int = 2,
    rescale: bool = True,
    ramp: Schedule | None = None,
) -> tuple[Collaborative, nn.Module]:
    student, others = network(0), [network(number + 1) for number in range(peers)]
    strategy = Collaborative(others, published(), Uniform(), split, rescale, ramp)
    strategy.meet(student)
    return strategy, student


def total(turn: Turn) -> Tensor:
    return torch.stack(list(turn.terms.values())).sum()


def divergence(target: Tensor, own: Tensor) -> Tensor:
    """3^2 KL(target || own), both softened by 3."""
    p, log_q = (target / 3).softmax(-1), (own / 3).log_softmax(-1)
    return 9 * (p * (p.log() - log_q)).sum(-1).mean()


def reference_heads(
    parts: nn.ModuleDict, split: str | None, batch: Batch, ramp: float = 1.0
) -> list[Tensor]:
    """beta CE + (1 - beta) 3^2 KL from the mean of the other heads' logits, for each head."""
    assert batch.mask is not None
    networks = [parts["student"], *parts["strategy"].get_submodule("branches.peers").children()]
    logits = [
        each.get_submodule("2")(
            (networks[0] if split else each).get_submodule("0")(batch.inputs).tanh()
        )
        for each in networks
    ]
    losses = []
    for own, z in enumerate(logits):
        others = [other.detach() for number, other in enumerate(logits) if number != own]
        label = F.cross_entropy(z[batch.mask], batch.target[batch.mask])
        soft = divergence(torch.stack(others).sum(0) / len(others), z)
        losses.append(BETA * label + (1 - BETA) * ramp * soft)
    return losses


@pytest.mark.parametrize("peers", [1, 2, 3])
@pytest.mark.parametrize(("split", "rescale"), [(None, True), ("1", False), ("1", True)])
def test_loss_and_gradients_are_the_papers(
    network: Maker, batch: Batch, peers: int, split: str | None, rescale: bool
) -> None:
    strategy, student = made(network, split, peers, rescale)
    parts = nn.ModuleDict({"student": student, "strategy": strategy})
    again = copy.deepcopy(parts)
    (turn,) = strategy.turns(student, Ensemble(), batch, START)
    total(turn).backward()
    expected = torch.stack(reference_heads(again, split, batch)).sum()
    expected.backward()
    torch.testing.assert_close(total(turn), expected)
    for (name, ours), theirs in zip(parts.named_parameters(), again.parameters(), strict=True):
        in_trunk = split is not None and name.startswith("student.0.")
        assert ours.grad is not None, name
        assert theirs.grad is not None, name
        share = 1 / (peers + 1) if rescale and in_trunk else 1.0
        torch.testing.assert_close(ours.grad, theirs.grad * share, msg=name)


def test_the_rescaled_trunk_descends_the_mean_of_the_heads(network: Maker, batch: Batch) -> None:
    strategy, student = made(network, "1", peers=3)
    parts = nn.ModuleDict({"student": student, "strategy": strategy})
    again = copy.deepcopy(parts)
    (turn,) = strategy.turns(student, Ensemble(), batch, START)
    total(turn).backward()
    torch.stack(reference_heads(again, "1", batch)).mean().backward()
    ours, theirs = (each.get_parameter("student.0.weight") for each in (parts, again))
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_the_ramp_is_on_the_soft_terms_alone(network: Maker, batch: Batch) -> None:
    strategy, student = made(network, "1", ramp=RampUp(0.4))
    parts = nn.ModuleDict({"student": student, "strategy": strategy})
    (turn,) = strategy.turns(student, Ensemble(), batch, Progress(5, 0, 0.2))
    expected = torch.stack(reference_heads(parts, "1", batch, math.exp(-1.25))).sum()
    torch.testing.assert_close(total(turn), expected)


def test_a_head_gets_no_gradient_from_teaching(
    network: Maker, batch: Batch, distance: dict[str, Term]
) -> None:
    student = network(0)
    strategy = Collaborative([network(1), network(2)], distance, Uniform(), "1")
    (turn,) = strategy.turns(student, Ensemble(), batch, START)
    turn.terms["peer/2/distance"].backward()
    assert all(p.grad is not None for p in strategy.branches.peers[1].parameters())
    assert all(p.grad is not None for p in student.get_submodule("0").parameters())
    assert all(p.grad is None for p in strategy.branches.peers[0].parameters())
    assert all(p.grad is None for p in student.get_submodule("2").parameters())


def test_frozen_teachers_are_heard_beside_the_mean(
    network: Maker, ensemble: Callable[[int], Ensemble], batch: Batch
) -> None:
    strategy, student = made(network, None, peers=1)
    teachers = ensemble(2)
    (turn,) = strategy.turns(student, teachers, batch, START)
    voices = [strategy.branches.peers[0](batch.inputs)]
    voices += [teacher(batch.inputs).logits for teacher in teachers.members]
    own = student(batch.inputs)
    expected = torch.stack([divergence(voice, own) for voice in voices]).mean()
    torch.testing.assert_close(turn.terms["soft"], (1 - BETA) * expected)


def test_what_is_reported_and_delivered(network: Maker) -> None:
    strategy, student = made(network, "1")
    assert list(strategy.players(student)) == ["student"]
    named = strategy.predictors(student)
    assert list(named) == ["student", "peer/1", "peer/2"]
    assert strategy.deliverable(student) is student is named["student"]


def test_identical_heads_have_nothing_to_teach(network: Maker, batch: Batch) -> None:
    strategy = Collaborative([network(0), network(0)], published(), Uniform(), "1")
    (turn,) = strategy.turns(network(0), Ensemble(), batch, START)
    assert turn.terms["soft"].item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("size", [1e4, -1e4])
@pytest.mark.parametrize("rows", [1, 7])
def test_saturated_logits_and_a_batch_of_one_stay_finite(
    network: Maker, batch: Batch, size: float, rows: int
) -> None:
    strategy, student = made(network, "1")
    with torch.no_grad():
        for number, each in enumerate([student, *strategy.branches.peers]):
            each.get_submodule("2").get_parameter("bias")[number] = size
    known = None if batch.mask is None else batch.mask[:rows]
    few = Batch(batch.inputs[:rows], batch.target[:rows], batch.index[:rows], known)
    (turn,) = strategy.turns(student, Ensemble(), few, START)
    total(turn).backward()
    assert total(turn).isfinite()
    parameters = [*student.parameters(), *strategy.parameters()]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in parameters)


def test_without_labels_only_the_soft_terms_count(network: Maker, batch: Batch) -> None:
    unknown = torch.full_like(batch.target, UNLABELLED)
    unlabelled = batch._replace(target=unknown, mask=torch.zeros(7, dtype=torch.bool))
    strategy, student = made(network, "1")
    (turn,) = strategy.turns(student, Ensemble(), unlabelled, START)
    for name, value in turn.terms.items():
        assert (value.item() == 0.0) == name.endswith("label"), name


def test_what_cannot_be_is_refused(network: Maker) -> None:
    with pytest.raises(ValueError, match="at least one network"):
        Collaborative([], published(), Uniform())
    with pytest.raises(UserError, match="has no module 'stages'"):
        Collaborative([network(1)], published(), Uniform(), "stages.1")
    other = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 9)).double()
    with pytest.raises(UserError, match=r"strategy\.peers: expected networks like the student"):
        Collaborative([other], published(), Uniform(), "1").meet(network(0))


def test_heads_come_together_on_digits(trained: Callable[..., Any]) -> None:
    """With what the others say, the student ends nearer to their mean than without."""
    run = ("strategy=collaborative", "teacher=none", "controls=[]", "epochs=4")
    distances = []
    for weight in (3, 0):
        done = trained(*run, f"objective.soft_weight={weight}")
        inputs = torch.cat([each.inputs for each in done.plan.data.val_dataloader()])
        with torch.no_grad():
            said = {n: as_output(each(inputs)).logits for n, each in done.networks.items()}
        own = said.pop("student")
        distances.append(divergence(torch.stack(list(said.values())).mean(0), own).item())
        assert done.accuracies["student"] > 0.5
    assert distances[0] < 0.6 * distances[1]
