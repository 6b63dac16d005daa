from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ensemble_kd.errors import UserError
from ensemble_kd.objectives import Label, Soft, Term
from ensemble_kd.schedules import RampUp
from ensemble_kd.strategies.branches import Branches, Descended, prefixed
from ensemble_kd.types import UNLABELLED, Batch, Output, Progress
from ensemble_kd.weightings import Fixed, Uniform

START = Progress(0, 0, 0.0)
LATER = Progress(9, 1, 1.0)
Maker = Callable[[int], nn.Module]
Terms = Callable[[], dict[str, Term]]


class Skipping(nn.Module):
    """Does not run its modules one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 5)
        self.last = nn.Linear(5, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        said: Tensor = self.last(inputs + self.first(inputs))
        return said


class Later(Uniform):
    learns_afterwards = True


def test_with_a_split_peers_lose_their_trunk_and_the_student_keeps_it(network: Maker) -> None:
    student, branches = network(0), Branches([network(1), network(2)], "1")
    branches.check(student)
    for peer in branches.peers:
        assert [name for name, _ in peer.named_parameters()] == ["2.weight", "2.bias"]
    assert [name for name, _ in student.named_parameters()][:2] == ["0.weight", "0.bias"]


@pytest.mark.parametrize("split", [None, "1"])
def test_predictors_are_what_runs(network: Maker, batch: Batch, split: str | None) -> None:
    student, branches = network(0), Branches([network(1), network(2)], split)
    named = branches.predictors(branches.networks(student))
    assert list(named) == branches.names() == ["student", "peer/1", "peer/2"]
    assert named["student"] is student
    heard = branches.run(student, [batch.inputs], START)
    for number, (predictor, output) in enumerate(zip(named.values(), heard.outputs, strict=True)):
        own: nn.Module = network(number)
        trunk = (network(0) if split else own).get_submodule("0")
        expected = own.get_submodule("2")(trunk(batch.inputs).tanh())
        torch.testing.assert_close(output.logits, expected)
        torch.testing.assert_close(predictor(batch.inputs), expected)


def test_peers_apart_may_differ() -> None:
    branches = Branches([nn.Linear(5, 4)])
    branches.check(nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 4)))


def test_unlike_peers_cannot_share_a_trunk(network: Maker) -> None:
    other = nn.Sequential(nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 4)).double()
    branches = Branches([network(1), other], "1")
    with pytest.raises(UserError, match=r"strategy\.peers: .* Sequential as peer/2: strategy\.spl"):
        branches.check(network(0))


def test_a_split_that_is_not_there_is_named(network: Maker) -> None:
    with pytest.raises(UserError, match="Sequential has no module '7'"):
        Branches([network(1)], "7")
    with pytest.raises(UserError, match="no trunk to share"):
        Branches([network(1)], "0")


def test_a_network_that_cannot_be_cut_is_refused_in_the_first_step() -> None:
    branches = Branches([Skipping()], "last")
    with pytest.raises(UserError, match="does not run its modules one after the other"):
        branches.run(Skipping(), [torch.randn(3, 5)], START)


def test_no_peers_are_refused() -> None:
    with pytest.raises(ValueError, match="peers must hold at least one network, got none"):
        Branches([])


def test_a_branch_descends_labels_by_itself_and_the_rest_under_its_voices(
    network: Maker, batch: Batch, terms: Terms
) -> None:
    assert batch.mask is not None
    descended = Descended(terms(), Fixed([3, 1]))
    branch, one, other = (Output(network(seed)(batch.inputs)) for seed in range(3))
    own = descended.own(branch, batch, START)
    taught = descended.taught(branch, [one, other], batch, START)
    assert (list(own), list(taught)) == (["label"], ["soft"])
    label = F.cross_entropy(branch.logits[batch.mask], batch.target[batch.mask])
    torch.testing.assert_close(own["label"], 0.3 * label)

    def divergence(voice: Output) -> Tensor:
        p, log_q = (voice.logits / 2).softmax(-1), (branch.logits / 2).log_softmax(-1)
        return 4 * (p * (p.log() - log_q)).sum(-1).mean()

    one_said, other_said = divergence(one), divergence(other)
    torch.testing.assert_close(taught["soft"], 0.7 * (0.75 * one_said + 0.25 * other_said))
    alike = descended.taught(branch, [one, other], batch, START, weighted=False)
    torch.testing.assert_close(alike["soft"], 0.7 * (0.5 * one_said + 0.5 * other_said))


@pytest.mark.parametrize(
    ("epoch", "factor"),
    [(0, math.exp(-5)), (1, math.exp(-5 * (79 / 80) ** 2)), (40, math.exp(-1.25)), (80, 1.0)],
)
def test_the_ramp_is_on_what_is_taught_alone(
    network: Maker, batch: Batch, terms: Terms, epoch: int, factor: float
) -> None:
    """Over 80 of 300 epochs, as the online methods have it."""
    plain, ramped = Descended(terms(), Uniform()), Descended(terms(), Uniform(), RampUp(80 / 300))
    branch, voice = Output(network(0)(batch.inputs)), Output(network(1)(batch.inputs))
    then = Progress(epoch, epoch, epoch / 300)
    whole = plain.taught(branch, [voice], batch, then)["soft"]
    torch.testing.assert_close(
        ramped.taught(branch, [voice], batch, then)["soft"], factor * whole, rtol=1e-9, atol=0.0
    )
    own = (each.own(branch, batch, then)["label"] for each in (plain, ramped))
    torch.testing.assert_close(next(own), next(own))


def test_without_voices_nothing_is_taught(network: Maker, batch: Batch, terms: Terms) -> None:
    descended = Descended(terms(), Uniform())
    branch = Output(network(0)(batch.inputs))
    assert descended.taught(branch, [], batch, START) == {}
    labels = Descended({"label": Term(Label())}, Uniform())
    assert labels.taught(branch, [branch], batch, START) == {}
    assert Descended({"soft": Term(Soft())}, Uniform()).own(branch, batch, START) == {}


def test_a_batch_without_labels_gives_zero_and_not_nan(
    network: Maker, batch: Batch, terms: Terms
) -> None:
    unknown = torch.full_like(batch.target, UNLABELLED)
    unlabelled = batch._replace(target=unknown, mask=torch.zeros(7, dtype=torch.bool))
    own = Descended(terms(), Uniform()).own(Output(network(0)(batch.inputs)), unlabelled, LATER)
    assert own["label"].item() == 0.0


def test_terms_carry_the_name_of_their_owner() -> None:
    term = {"soft": torch.zeros(())}
    assert list(prefixed("student", term)) == ["soft"]
    assert list(prefixed("peer/1", term)) == ["peer/1/soft"]


def test_what_cannot_be_is_refused(terms: Terms) -> None:
    with pytest.raises(ValueError, match="terms must hold at least one term"):
        Descended({}, Uniform())
    with pytest.raises(ValueError, match=r"weighting must not wait .*, got Later"):
        Descended(terms(), Later())
