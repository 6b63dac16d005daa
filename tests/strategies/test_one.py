from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ensemble_kd.errors import UserError
from ensemble_kd.networks.gated import Gated
from ensemble_kd.objectives import Label, Soft, Term
from ensemble_kd.schedules import RampUp
from ensemble_kd.strategies import One
from ensemble_kd.teachers import Ensemble
from ensemble_kd.types import UNLABELLED, Batch, Progress, Turn, as_output
from ensemble_kd.weightings import Uniform

START = Progress(0, 0, 0.0)
Maker = Callable[[int], nn.Module]
SPLITS = pytest.mark.parametrize("split", [None, "1"])


def published() -> dict[str, Term]:
    return {"label": Term(Label()), "soft": Term(Soft(temperature=3.0))}


def made(
    network: Maker, split: str | None, peers: int = 2, **options: Any
) -> tuple[One, nn.Module]:
    student, others = network(0), [network(number + 1) for number in range(peers)]
    strategy = One(others, published(), Uniform(), (5,), split, **options)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        strategy.meet(student)
    assert strategy.gate is not None
    with torch.no_grad():  # so that BatchNorm's own parameters matter
        strategy.gate.norm.weight.copy_(torch.linspace(0.5, 1.5, peers + 1))
        strategy.gate.norm.bias.copy_(torch.linspace(0.2, 0.4, peers + 1))
    return strategy, student


def total(turn: Turn) -> Tensor:
    return torch.stack(list(turn.terms.values())).sum()


def divergence(target: Tensor, own: Tensor) -> Tensor:
    """3^2 KL(target || own), both softened by 3."""
    p, log_q = (target / 3).softmax(-1), (own / 3).log_softmax(-1)
    return 9 * (p * (p.log() - log_q)).sum(-1).mean()


def reference_one(
    parts: nn.ModuleDict, split: str | None, batch: Batch, ramp: float
) -> tuple[Tensor, Tensor]:
    """The paper's loss, written out: the loss and the gate's shares (b, m)."""
    assert batch.mask is not None
    networks = [parts["student"], *parts["strategy"].get_submodule("branches.peers").children()]
    gate = parts["strategy"].get_submodule("gate")
    trunks = [networks[0] if split else each for each in networks]
    hidden = [trunk.get_submodule("0")(batch.inputs) for trunk in trunks]
    logits = [each.get_submodule("2")(h.tanh()) for each, h in zip(networks, hidden, strict=True)]
    seen = hidden[0] if split else torch.cat([h.tanh() for h in hidden], dim=1)
    scores = gate.get_submodule("linear")(seen)
    mean, variance = scores.mean(0), scores.var(0, unbiased=False)
    norm: Any = gate.get_submodule("norm")
    scores = (scores - mean) / (variance + norm.eps).sqrt() * norm.weight + norm.bias
    shares = scores.relu().softmax(-1)
    gated = sum(shares[:, number, None] * z for number, z in enumerate(logits))
    assert isinstance(gated, Tensor)
    loss = F.cross_entropy(gated[batch.mask], batch.target[batch.mask])
    for z in logits:
        loss = loss + F.cross_entropy(z[batch.mask], batch.target[batch.mask])
        loss = loss + ramp * divergence(gated.detach(), z)
    return loss, shares


@SPLITS
def test_loss_and_gradients_are_the_papers(network: Maker, batch: Batch, split: str | None) -> None:
    strategy, student = made(network, split, ramp=RampUp(0.4))
    parts = nn.ModuleDict({"student": student, "strategy": strategy})
    again = copy.deepcopy(parts)
    half_way = Progress(5, 0, 0.2)
    (turn,) = strategy.turns(student, Ensemble(), batch, half_way)
    total(turn).backward()
    expected, shares = reference_one(again, split, batch, ramp=float(torch.tensor(-1.25).exp()))
    expected.backward()
    torch.testing.assert_close(total(turn), expected)
    for (name, ours), theirs in zip(parts.named_parameters(), again.parameters(), strict=True):
        assert ours.grad is not None, name
        torch.testing.assert_close(ours.grad, theirs.grad, msg=name)
    assert turn.player == "student"
    assert list(turn.measured) == ["student/gate", "peer/1/gate", "peer/2/gate"]
    for measured, mean in zip(turn.measured.values(), shares.mean(0), strict=True):
        torch.testing.assert_close(measured, mean)


def test_the_target_gets_no_gradient(
    network: Maker, batch: Batch, distance: dict[str, Term]
) -> None:
    """Not the gate, which only the gated ensemble's own label term trains."""
    student = network(0)
    strategy = One([network(1), network(2)], distance, Uniform(), (5,), "1")
    strategy.meet(student)
    (turn,) = strategy.turns(student, Ensemble(), batch, START)
    assert list(turn.terms) == ["distance", "peer/1/distance", "peer/2/distance"]
    turn.terms["peer/1/distance"].backward()
    assert all(p.grad is not None for p in strategy.branches.peers[0].parameters())
    assert all(p.grad is not None for p in student.get_submodule("0").parameters())
    others = [student.get_submodule("2"), strategy.branches.peers[1], strategy.gate]
    assert all(p.grad is None for part in others if part for p in part.parameters())


def test_the_ensembles_label_trains_gate_and_all_branches(network: Maker, batch: Batch) -> None:
    strategy, student = made(network, "1")
    (turn,) = strategy.turns(student, Ensemble(), batch, START)
    assert "gated/soft" not in turn.terms
    turn.terms["gated/label"].backward()
    assert all(p.grad is not None for p in [*student.parameters(), *strategy.parameters()])


def test_frozen_teachers_are_heard_beside_the_ensemble(
    network: Maker, ensemble: Callable[[int], Ensemble], batch: Batch
) -> None:
    strategy, student = made(network, None)
    teachers = ensemble(1)
    before = copy.deepcopy(teachers.members[0].state_dict())
    (turn,) = strategy.turns(student, teachers, batch, START)
    with torch.no_grad():
        gated = strategy.predictors(student)["gated"](batch.inputs)
        own, taught = student(batch.inputs), teachers.members[0](batch.inputs).logits
        expected = (divergence(gated, own) + divergence(taught, own)) / 2
    torch.testing.assert_close(turn.terms["soft"].detach(), expected)
    total(turn).backward()
    assert all(torch.equal(t, before[n]) for n, t in teachers.members[0].state_dict().items())


@SPLITS
def test_what_is_reported_and_delivered(network: Maker, batch: Batch, split: str | None) -> None:
    strategy, student = made(network, split)
    assert list(strategy.players(student)) == ["student"]
    named = strategy.predictors(student)
    assert list(named) == ["student", "peer/1", "peer/2", "gated"]
    assert strategy.deliverable(student) is student is named["student"]

    strategy, student = made(network, split, deliver="ensemble")
    named = strategy.predictors(student)
    assert list(named) == ["student", "peer/0", "peer/1", "peer/2"]
    assert named["peer/0"] is student
    delivered = strategy.deliverable(student)
    assert isinstance(delivered, Gated)
    student.eval()
    strategy.eval()
    with torch.no_grad():
        _, shares = reference_one(
            nn.ModuleDict({"student": student, "strategy": strategy}), split, batch, 1.0
        )
        said = delivered.train()(batch.inputs)
        each = [named[name](batch.inputs) for name in ("peer/0", "peer/1", "peer/2")]
    expected = sum(shares[:, number, None] * z for number, z in enumerate(each))
    torch.testing.assert_close(said, expected)


def test_every_parameter_is_stepped_once(network: Maker) -> None:
    strategy, student = made(network, "1")
    stepped = [id(p) for p in strategy.players(student)["student"]]
    everything = {id(p) for p in [*student.parameters(), *strategy.parameters()]}
    assert len(stepped) == len(set(stepped))
    assert set(stepped) == everything


def test_a_fresh_ensemble_is_in_the_mode_of_its_parts(network: Maker) -> None:
    strategy, student = made(network, "1", deliver="ensemble")
    student.eval()
    strategy.eval()
    delivered = strategy.deliverable(student)
    assert not any(module.training for module in delivered.modules())


@pytest.mark.parametrize("size", [1e4, -1e4])
def test_saturated_logits_stay_finite(network: Maker, batch: Batch, size: float) -> None:
    strategy, student = made(network, None)
    with torch.no_grad():
        for number, each in enumerate([student, *strategy.branches.peers]):
            last = each.get_submodule("2")
            assert isinstance(last, nn.Linear)
            last.bias[number] = size
    (turn,) = strategy.turns(student, Ensemble(), batch, START)
    total(turn).backward()
    assert total(turn).isfinite()
    parameters = [*student.parameters(), *strategy.parameters()]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in parameters)


def test_identical_branches_have_nothing_to_teach(network: Maker, batch: Batch) -> None:
    student = network(0)
    strategy = One([network(0)], published(), Uniform(), (5,))
    strategy.meet(student)
    (turn,) = strategy.turns(student, Ensemble(), batch, START)
    assert turn.terms["soft"].item() == pytest.approx(0.0, abs=1e-12)


def test_without_labels_only_the_soft_terms_count(network: Maker, batch: Batch) -> None:
    unknown = torch.full_like(batch.target, UNLABELLED)
    unlabelled = batch._replace(target=unknown, mask=torch.zeros(7, dtype=torch.bool))
    strategy, student = made(network, "1")
    (turn,) = strategy.turns(student, Ensemble(), unlabelled, START)
    for name, value in turn.terms.items():
        assert (value.item() == 0.0) == name.endswith("label"), name


def test_what_cannot_be_is_refused(network: Maker, batch: Batch) -> None:
    with pytest.raises(ValueError, match="deliver must be student or ensemble, got 'all'"):
        One([network(1)], published(), Uniform(), (5,), deliver="all")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one network"):
        One([], published(), Uniform(), (5,))
    with pytest.raises(UserError, match="has no module 'stages'"):
        One([network(1)], published(), Uniform(), (5,), split="stages.1")
    fresh = One([network(1)], published(), Uniform(), (5,))
    with pytest.raises(ValueError, match="must meet the student"):
        next(fresh.turns(network(0), Ensemble(), batch, START))


def test_branches_learn_from_the_ensemble_on_digits(trained: Callable[..., Any]) -> None:
    """With what the ensemble says, the student ends nearer to it than without."""
    run = ("strategy=one", "teacher=none", "controls=[]", "epochs=4", "strategy.ramp=null")
    distances = []
    for weight in (3, 0):
        done = trained(*run, f"objective.soft_weight={weight}")
        inputs = torch.cat([each.inputs for each in done.plan.data.val_dataloader()])
        with torch.no_grad():
            own, gated = (
                as_output(done.networks[name](inputs)).logits for name in ("student", "gated")
            )
        distances.append(divergence(gated, own).item())
        assert done.accuracies["student"] > 0.5
        shares = [done.curves["student", f"{n}/gate"][-1] for n in ("student", "peer/1", "peer/2")]
        assert sum(shares) == pytest.approx(1)
    assert distances[0] < 0.6 * distances[1]
