from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ensemble_kd.objectives import Label, Soft, Term
from ensemble_kd.strategies import KDCL
from ensemble_kd.strategies.kdcl import Target
from ensemble_kd.teachers import Ensemble
from ensemble_kd.types import UNLABELLED, Batch, Output, Progress, Turn
from ensemble_kd.weightings import Reinforced, Uniform

START = Progress(0, 0, 0.0)
TARGETS = get_args(Target)
Maker = Callable[[int], nn.Module]


def kdcl_terms() -> dict[str, Term]:
    return {"label": Term(Label()), "soft": Term(Soft(temperature=2.0))}


def kdcl(peers: list[nn.Module], **arguments: Any) -> KDCL:
    return KDCL(peers, kdcl_terms(), Uniform(), **arguments)


def softmax(row: list[float], temperature: float = 1.0) -> list[float]:
    powers = [np.exp((z - max(row)) / temperature) for z in row]
    return [float(power / sum(powers)) for power in powers]


def loss(row: list[float], label: int) -> float:
    return float(-np.log(softmax(row)[label]))


def reference_target(kind: str, z: Tensor, batch: Batch, weights: list[float]) -> Tensor:
    """z* of section 3 of the paper, sample by sample; ``linear`` by a grid over the simplex."""
    count, classes = len(z), z.shape[-1]
    rows = []
    for b, label in enumerate(batch.target.tolist()):
        said = z[:, b].tolist()
        if kind == "general":
            row = (np.array(weights) @ np.array(said)).tolist()
        elif label == UNLABELLED:
            row = [sum(each[c] for each in said) / count for c in range(classes)]
        elif kind == "naive":
            row = min(said, key=lambda each: loss(each, label))
        elif kind == "min_logit":
            row = [min(each[c] - each[label] for each in said) for c in range(classes)]
        else:
            grid = itertools.product(range(101), repeat=count - 1)
            simplex = [[*a, 100 - sum(a)] for a in grid if sum(a) <= 100]
            mixed = ((np.array(a) / 100) @ np.array(said) for a in simplex)
            row = min((list(each) for each in mixed), key=lambda each: loss(each, label))
        rows.append(row)
    return torch.tensor(rows, dtype=torch.float64)


def reference_loss(own: Tensor, voices: list[Tensor], batch: Batch) -> Tensor:
    """Cross-entropy on the labelled samples plus 2^2 KL from each voice, their mean."""
    assert batch.mask is not None
    total = torch.zeros((), dtype=torch.float64)
    for b, label in enumerate(batch.target.tolist()):
        if label != UNLABELLED:
            total = total - own[b].log_softmax(-1)[label] / batch.mask.sum()
    for voice in voices:
        p, log_q = (voice.detach() / 2).softmax(-1), (own / 2).log_softmax(-1)
        total = total + 4 * (p * (p.log() - log_q)).sum(-1).mean() / len(voices)
    return total


def total(turn: Turn) -> Tensor:
    return torch.stack(list(turn.terms.values())).sum()


def views_of(batch: Batch, count: int) -> Batch:
    generator = torch.Generator().manual_seed(9)
    views = torch.randn(count, 7, 5, generator=generator, dtype=torch.float64)
    return batch._replace(views=tuple(views))


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("peers", [1, 2])
def test_all_learn_one_target_each_from_its_own_view(
    network: Maker, batch: Batch, kind: Target, peers: int
) -> None:
    seen = views_of(batch, peers)
    student, others = network(0), [network(number + 1) for number in range(peers)]
    strategy = kdcl(others, target=kind)
    assert strategy.views == peers + 1
    covariance = torch.eye(peers + 1) + torch.diag(torch.arange(peers + 1.0))
    strategy.errors.copy_(covariance)
    (turn,) = strategy.turns(student, Ensemble(), seen, START)
    total(turn).backward()

    copies = copy.deepcopy([student, *strategy.branches.peers])
    for each in copies:
        each.zero_grad()
    said = [net(x) for net, x in zip(copies, [seen.inputs, *seen.views], strict=True)]
    shares = [1 / variance for variance in covariance.diagonal().tolist()]
    weights = [share / sum(shares) for share in shares]
    z = reference_target(kind, torch.stack(said).detach(), seen, weights)
    expected = torch.stack([reference_loss(own, [z], seen) for own in said]).sum()
    expected.backward()
    # The grid is coarse, but at the minimum the target hardly moves.
    near = 2e-2 if kind == "linear" else 1e-5
    torch.testing.assert_close(total(turn), expected, rtol=0.0, atol=near)
    for ours, theirs in zip([student, *strategy.branches.peers], copies, strict=True):
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad, rtol=0.0, atol=near)


@pytest.mark.parametrize("kind", TARGETS)
def test_the_target_carries_no_gradient(network: Maker, batch: Batch, kind: Target) -> None:
    said = tuple(Output(network(seed)(batch.inputs)) for seed in range(3))
    assert said[0].logits.requires_grad
    z = kdcl([network(1), network(2)], target=kind).common_target(said, batch)
    assert z.shape == (7, 4)
    assert not z.requires_grad


def test_the_errors_are_those_of_the_probabilities_on_the_labelled_samples() -> None:
    """C of two passes of two batches each: the second pass replaces the first."""
    strategy = kdcl([nn.Linear(2, 2), nn.Linear(2, 2)], target="general")
    names = ["student", "peer/1", "peer/2"]
    generator = torch.Generator().manual_seed(1)
    for step in (4, 8):
        want = np.zeros((3, 3))
        for size in (5, 2):
            logits = torch.randn(3, size, 4, generator=generator)
            target = torch.arange(size) % 4
            mask = torch.arange(size) != 1
            batch = Batch(None, target.where(mask, UNLABELLED), torch.arange(size), mask)
            said = {name: Output(z) for name, z in zip(names, logits, strict=True)}
            with torch.inference_mode():
                strategy.validated(said, batch, Progress(step, step // 4, 0.0))
            for b in range(size):
                if mask[b]:
                    for i, j in itertools.product(range(3), repeat=2):
                        missed = [
                            np.array(softmax(logits[k, b].tolist())) - np.eye(4)[target[b]]
                            for k in (i, j)
                        ]
                        want[i, j] += missed[0] @ missed[1]
    np.testing.assert_allclose(strategy.errors.numpy(), want, rtol=1e-5)
    assert not strategy.errors.is_inference()


def test_a_better_network_counts_for_more(network: Maker, batch: Batch) -> None:
    strategy = kdcl([network(1)], target="general")
    said = (Output(network(0)(batch.inputs)), Output(network(1)(batch.inputs)))
    before = strategy.common_target(said, batch)
    torch.testing.assert_close(before, (said[0].logits + said[1].logits).detach() / 2)
    strategy.errors.copy_(torch.tensor([[1.0, 0.0], [0.0, 9.0]]))
    after = strategy.common_target(said, batch)
    torch.testing.assert_close(
        after, (0.9 * said[0].logits + 0.1 * said[1].logits).detach(), rtol=1e-4, atol=1e-5
    )


def test_frozen_teachers_teach_beside_the_target(
    network: Maker, ensemble: Callable[[int], Ensemble], batch: Batch
) -> None:
    student, teachers = network(0), ensemble(1)
    strategy = kdcl([network(1)], augmentation="shared")
    (turn,) = strategy.turns(student, teachers, batch, START)
    said = [student(batch.inputs), strategy.branches.peers[0](batch.inputs)]
    z = reference_target("min_logit", torch.stack(said).detach(), batch, [])
    voices = [z, teachers.members[0](batch.inputs).logits]
    expected = reference_loss(said[0], voices, batch)
    torch.testing.assert_close(turn.terms["label"] + turn.terms["soft"], expected)


@pytest.mark.parametrize("kind", TARGETS)
def test_identical_networks_learn_the_labels_only(
    network: Maker, batch: Batch, kind: Target
) -> None:
    strategy = kdcl([network(0)], target=kind, augmentation="shared")
    (turn,) = strategy.turns(network(0), Ensemble(), batch, START)
    assert turn.terms["soft"].item() == pytest.approx(0.0, abs=1e-12)
    assert turn.terms["peer/1/soft"].item() == pytest.approx(0.0, abs=1e-12)
    assert turn.terms["label"] > 0


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("known", ["some", "none", "one"])
def test_hard_cases_stay_finite(network: Maker, batch: Batch, kind: Target, known: str) -> None:
    """Logits of +-1e4; a batch without labels; a batch of one sample."""
    if known == "none":
        nobody = torch.full_like(batch.target, UNLABELLED)
        batch = batch._replace(target=nobody, mask=torch.zeros(7, dtype=torch.bool))
    if known == "one":
        batch = Batch(batch.inputs[:1], batch.target[:1], batch.index[:1])
    student, peer = network(0), network(1)
    for each in (student, peer):
        with torch.no_grad():
            for parameter in each[2].parameters():  # type: ignore[index]
                parameter.mul_(1e4)
    strategy = kdcl([peer], target=kind, augmentation="shared")
    (turn,) = strategy.turns(student, Ensemble(), batch, START)
    total(turn).backward()
    for network_ in (student, peer):
        for p in network_.parameters():
            assert p.grad is not None
            assert p.grad.isfinite().all()
    assert total(turn).isfinite()


def test_players_and_predictors(network: Maker) -> None:
    student, peers = network(0), [network(1), network(2)]
    strategy = kdcl(peers)
    (player,) = strategy.players(student).values()
    assert len(player) == 3 * len(list(student.parameters()))
    assert list(strategy.predictors(student).values()) == [student, *peers]
    assert list(strategy.predictors(student)) == ["student", "peer/1", "peer/2"]
    assert strategy.deliverable(student) is student
    assert kdcl(peers, augmentation="shared").views == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"peers": []}, "at least one network, got none"),
        ({"target": "best"}, "target must be one of naive, linear, min_logit, general, got 'best'"),
        ({"augmentation": "none"}, "augmentation must be own or shared, got 'none'"),
        ({"weighting": Reinforced(1)}, "weighting must not wait .* got Reinforced"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], words: str) -> None:
    good: dict[str, Any] = {
        "peers": [nn.Linear(2, 2)],
        "terms": kdcl_terms(),
        "weighting": Uniform(),
    }
    with pytest.raises(ValueError, match=words):
        KDCL(**{**good, **arguments})


def test_missing_views_are_refused(network: Maker, batch: Batch) -> None:
    with pytest.raises(ValueError, match=r"views must be 1 further .* got 0: .*shared"):
        next(kdcl([network(1)]).turns(network(0), Ensemble(), batch, START))


def test_peers_with_other_classes_are_refused(batch: Batch, network: Maker) -> None:
    strategy = kdcl([nn.Linear(5, 3).double()], augmentation="shared")
    with pytest.raises(ValueError, match="must have the student's shape"):
        next(strategy.turns(network(0), Ensemble(), batch, START))


ONLINE = ("strategy=kdcl", "teacher=none", "controls=[]")


@pytest.mark.parametrize("kind", TARGETS)
def test_networks_that_learn_one_target_come_nearer(
    trained: Callable[..., Any], kind: Target
) -> None:
    run = [*ONLINE, "epochs=5", "seed=1", f"strategy.target={kind}"]
    together, apart = trained(*run), trained(*run, "objective.soft_weight=0")
    assert set(together.accuracies) == {"student", "peer/1"}
    assert distance(together) < 0.95 * distance(apart)
    errors = together.products["student"].learner.strategy.errors
    assert (errors.diagonal() > 0).all()
    assert errors[0, 1] > 0


@pytest.mark.slow
def test_networks_that_learn_one_target_are_better(trained: Callable[..., Any]) -> None:
    """Against the same networks on the same batches without the target, over three seeds."""
    gains = []
    for seed in (1, 2, 3):
        run = [*ONLINE, "epochs=10", f"seed={seed}"]
        together, apart = trained(*run), trained(*run, "objective.soft_weight=0")
        gains += [together.accuracies[name] - apart.accuracies[name] for name in apart.accuracies]
    assert sum(gains) / len(gains) > 0.005


def distance(done: Any) -> float:
    """Mean distance between the networks' probabilities on the validation split."""
    apart = []
    with torch.no_grad():
        for batch in done.plan.data.val_dataloader():
            one, other = (network(batch.inputs).softmax(-1) for network in done.networks.values())
            apart.append((one - other).abs().sum(-1))
    return float(torch.cat(apart).mean())
