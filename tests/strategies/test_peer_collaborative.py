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
from ensemble_kd.strategies import PeerCollaborative
from ensemble_kd.strategies.moving_average import MovingAverage
from ensemble_kd.teachers import Ensemble
from ensemble_kd.types import UNLABELLED, Batch, Progress, Turn, as_output
from ensemble_kd.weightings import Fixed, Uniform, Weighting

START = Progress(0, 0, 0.0)
Maker = Callable[[int], nn.Module]
SPLITS = pytest.mark.parametrize("split", [None, "1"])


def published() -> dict[str, Term]:
    return {"label": Term(Label()), "soft": Term(Soft(temperature=3.0))}


def averages(strategy: PeerCollaborative) -> MovingAverage:
    assert strategy.average is not None
    return strategy.average


def made(
    network: Maker,
    split: str | None = None,
    terms: dict[str, Term] | None = None,
    weighting: Weighting | None = None,
    **options: Any,
) -> tuple[PeerCollaborative, nn.Module]:
    """Three branches, and averages that are already somewhere else."""
    student, others = network(0), [network(1), network(2)]
    strategy = PeerCollaborative(
        others, terms or published(), weighting or Uniform(), split, **options
    )
    with torch.random.fork_rng():
        torch.manual_seed(7)
        strategy.meet(student)
        with torch.no_grad():
            for parameter in averages(strategy).parameters():
                parameter.add_(torch.randn_like(parameter))
    return strategy, student


def seen(batch: Batch) -> Batch:
    """The batch with three views of its samples."""
    return batch._replace(views=(batch.inputs.flip(1), batch.inputs * 2))


def total(turn: Turn) -> Tensor:
    return torch.stack(list(turn.terms.values())).sum()


def divergence(target: Tensor, own: Tensor) -> Tensor:
    """3^2 KL(target || own), both softened by 3."""
    p, log_q = (target / 3).softmax(-1), (own / 3).log_softmax(-1)
    return 9 * (p * (p.log() - log_q)).sum(-1).mean()


def said_by(
    networks: list[nn.Module], split: str | None, views: list[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Features and logits of each branch, of its own view."""
    features = [
        (networks[0] if split else each).get_submodule("0")(view).tanh()
        for each, view in zip(networks, views, strict=True)
    ]
    logits = [each.get_submodule("2")(f) for each, f in zip(networks, features, strict=True)]
    return features, logits


def reference_pcl(
    parts: nn.ModuleDict, split: str | None, batch: Batch, views: list[Tensor], ramp: float
) -> Tensor:
    """CE(z_e) + sum_i CE(z_i) + w 3^2 (KL(z_e || z_i) + mean of KL(average of j != i || z_i))."""
    assert batch.mask is not None
    networks = [parts["student"], *parts["strategy"].get_submodule("branches.peers").children()]
    features, logits = said_by(networks, split, views)
    means = said_by(
        list(parts["strategy"].get_submodule("average.networks").children()), split, views
    )[1]
    ensemble = parts["strategy"].get_submodule("classifier")(torch.cat(features, dim=1))
    loss = F.cross_entropy(ensemble[batch.mask], batch.target[batch.mask])
    for i, z in enumerate(logits):
        loss = loss + F.cross_entropy(z[batch.mask], batch.target[batch.mask])
        beside = [divergence(mean.detach(), z) for j, mean in enumerate(means) if j != i]
        loss = loss + ramp * (divergence(ensemble.detach(), z) + sum(beside) / len(beside))
    return loss


@SPLITS
@pytest.mark.parametrize("augmentation", ["own", "shared"])
def test_loss_and_gradients_are_the_papers(
    network: Maker, batch: Batch, split: str | None, augmentation: Any
) -> None:
    strategy, student = made(network, split, augmentation=augmentation, ramp=RampUp(0.4))
    parts = nn.ModuleDict({"student": student, "strategy": strategy})
    again = copy.deepcopy(parts)
    batch = seen(batch)
    (turn,) = strategy.turns(student, Ensemble(), batch, Progress(5, 0, 0.2))
    total(turn).backward()
    views = [batch.inputs, *batch.views] if augmentation == "own" else [batch.inputs] * 3
    expected = reference_pcl(again, split, batch, views, math.exp(-1.25))
    expected.backward()
    torch.testing.assert_close(total(turn), expected)
    for (name, ours), theirs in zip(parts.named_parameters(), again.parameters(), strict=True):
        if name.startswith("strategy.average"):
            assert ours.grad is None, name
            continue
        assert ours.grad is not None, name
        torch.testing.assert_close(ours.grad, theirs.grad, msg=name)


@pytest.mark.parametrize("name", ["peer/1/ensemble_distance", "peer/1/mean_distance"])
def test_a_branch_alone_gets_gradient_from_what_it_is_taught(
    network: Maker, batch: Batch, distance: dict[str, Term], name: str
) -> None:
    strategy, student = made(network, terms=distance)
    (turn,) = strategy.turns(student, Ensemble(), seen(batch), START)
    assert len(turn.terms) == 6
    turn.terms[name].backward()
    taught, other = strategy.branches.peers
    assert all(p.grad is not None for p in taught.parameters())
    untouched = [*student.parameters(), *other.parameters(), *averages(strategy).parameters()]
    assert strategy.classifier is not None
    assert all(p.grad is None for p in [*untouched, *strategy.classifier.parameters()])


def test_the_ensembles_label_trains_all_branches(network: Maker, batch: Batch) -> None:
    strategy, student = made(network)
    (turn,) = strategy.turns(student, Ensemble(), seen(batch), START)
    turn.terms["peer_ensemble/label"].backward()
    for each in (student, *strategy.branches.peers):
        assert each.get_submodule("0").get_parameter("weight").grad is not None
        assert each.get_submodule("2").get_parameter("weight").grad is None


@pytest.mark.parametrize(("step", "kept"), [(0, 0.0), (1, 0.5), (3, 0.75), (500, 0.9)])
def test_the_averages_follow_the_stepped_weights(
    network: Maker, batch: Batch, step: int, kept: float
) -> None:
    strategy, student = made(network, decay=0.9)
    before = copy.deepcopy(averages(strategy).networks)
    for _turn in strategy.turns(student, Ensemble(), seen(batch), Progress(step, 0, 0.5)):
        with torch.no_grad():
            for each in (student, *strategy.branches.peers):
                for parameter in each.parameters():
                    parameter.mul_(1.5)
    networks = [student, *strategy.branches.peers]
    for mean, old, new in zip(averages(strategy).networks, before, networks, strict=True):
        for m, o, n in zip(mean.parameters(), old.parameters(), new.parameters(), strict=True):
            torch.testing.assert_close(m.data, kept * o + (1 - kept) * n.data)


def test_the_averages_rest_while_they_teach(batch: Batch) -> None:
    """BatchNorm's statistics are averaged with the weights, not moved by their own forward."""

    def normed() -> nn.Module:
        return nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Linear(6, 4)).double()

    strategy = PeerCollaborative([normed()], published(), Uniform(), augmentation="shared")
    student = normed()
    strategy.meet(student)
    before = copy.deepcopy(averages(strategy).state_dict())
    turns = strategy.turns(student, Ensemble(), batch, START)
    next(turns)
    for name, tensor in averages(strategy).state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(module.training for module in strategy.modules())
    assert next(turns, None) is None
    mean = averages(strategy).networks[0].state_dict()
    for name, tensor in student.state_dict().items():
        assert torch.equal(mean[name], tensor), name


def test_training_starts_from_the_weights_at_its_beginning(network: Maker) -> None:
    strategy, student = made(network)
    strategy.begin(student, Ensemble())
    for mean, own in zip(
        averages(strategy).networks, [student, *strategy.branches.peers], strict=True
    ):
        for name, tensor in own.state_dict().items():
            assert torch.equal(mean.state_dict()[name], tensor), name


def test_frozen_teachers_are_heard_beside_the_averages(
    network: Maker, ensemble: Callable[[int], Ensemble], batch: Batch
) -> None:
    """Under the weighting; the ensemble of the peers has nobody beside it to be weighed against."""
    strategy, student = made(network, weighting=Fixed([1, 1, 2]), augmentation="shared")
    teachers = ensemble(1)
    turn = next(strategy.turns(student, teachers, batch, START))
    own = student(batch.inputs)
    one, two = (mean(batch.inputs) for mean in averages(strategy).networks[1:])
    taught = teachers.members[0](batch.inputs).logits
    expected = (divergence(one, own) + divergence(two, own) + 2 * divergence(taught, own)) / 4
    torch.testing.assert_close(turn.terms["mean_soft"], expected)


@SPLITS
def test_what_is_reported_and_delivered(network: Maker, batch: Batch, split: str | None) -> None:
    strategy, student = made(network, split)
    assert list(strategy.players(student)) == ["student"]
    stepped = {id(p) for p in strategy.players(student)["student"]}
    assert not stepped & {id(p) for p in averages(strategy).parameters()}
    assert strategy.deliverable(student) is averages(strategy).networks[0]
    named = strategy.predictors(student)
    assert list(named) == ["student", "peer/1", "peer/2"]
    means = list(averages(strategy).networks)
    expected = said_by(means, split, [batch.inputs] * 3)[1]
    for predictor, logits in zip(named.values(), expected, strict=True):
        torch.testing.assert_close(predictor(batch.inputs), logits)

    strategy, student = made(network, split, deliver="student")
    assert strategy.deliverable(student) is student is strategy.predictors(student)["student"]


def test_each_branch_wants_a_view_of_its_own(network: Maker, batch: Batch) -> None:
    own, student = made(network)
    assert own.views == 3
    with pytest.raises(ValueError, match=r"for each of 3 branches, got 1: augmentation=shared"):
        next(own.turns(student, Ensemble(), batch, START))
    shared, _ = made(network, augmentation="shared")
    assert shared.views == 1


@pytest.mark.parametrize("size", [1e4, -1e4])
@pytest.mark.parametrize("rows", [1, 7])
def test_saturated_logits_and_a_batch_of_one_stay_finite(
    network: Maker, batch: Batch, size: float, rows: int
) -> None:
    strategy, student = made(network, augmentation="shared")
    with torch.no_grad():
        for number, each in enumerate([student, *strategy.branches.peers]):
            each.get_submodule("2").get_parameter("bias")[number] = size
        for each in averages(strategy).networks:
            each.get_submodule("2").get_parameter("bias")[3] = -size
    known = None if batch.mask is None else batch.mask[:rows]
    few = Batch(batch.inputs[:rows], batch.target[:rows], batch.index[:rows], known)
    (turn,) = strategy.turns(student, Ensemble(), few, START)
    total(turn).backward()
    assert total(turn).isfinite()
    parameters = strategy.players(student)["student"]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in parameters)


def test_without_labels_only_the_soft_terms_count(network: Maker, batch: Batch) -> None:
    unknown = torch.full_like(batch.target, UNLABELLED)
    unlabelled = batch._replace(target=unknown, mask=torch.zeros(7, dtype=torch.bool))
    strategy, student = made(network, augmentation="shared")
    (turn,) = strategy.turns(student, Ensemble(), unlabelled, START)
    for name, value in turn.terms.items():
        assert (value.item() == 0.0) == name.endswith("label"), name


def test_what_cannot_be_is_refused(network: Maker, batch: Batch) -> None:
    with pytest.raises(ValueError, match="deliver must be average or student, got 'both'"):
        made(network, deliver="both")
    with pytest.raises(ValueError, match="augmentation must be own or shared, got 'none'"):
        made(network, augmentation="none")
    with pytest.raises(ValueError, match=r"decay must be in \[0, 1\), got 1"):
        made(network, decay=1)
    with pytest.raises(UserError, match="has no module 'stages'"):
        made(network, "stages.1")
    fresh = PeerCollaborative([network(1)], published(), Uniform())
    with pytest.raises(ValueError, match="must meet the student"):
        next(fresh.turns(network(0), Ensemble(), seen(batch), START))


def test_branches_come_together_on_digits(trained: Callable[..., Any]) -> None:
    """With what the others' averages say, the student's ends nearer to them than without."""
    run = ("strategy=peer_collaborative", "teacher=none", "controls=[]", "epochs=4")
    distances = []
    for weight in (3, 0):
        done = trained(*run, "strategy.ramp=null", f"objective.soft_weight={weight}")
        inputs = torch.cat([each.inputs for each in done.plan.data.val_dataloader()])
        with torch.no_grad():
            said = {n: as_output(each(inputs)).logits for n, each in done.networks.items()}
        own = said.pop("student")
        distances.append(divergence(torch.stack(list(said.values())).mean(0), own).item())
        assert done.accuracies["student"] > 0.4
    assert distances[0] < 0.6 * distances[1]
    learner = done.products["student"].learner
    assert not torch.equal(
        learner.deliverable().classifier.weight, learner.student.classifier.weight
    )
