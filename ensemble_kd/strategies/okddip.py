"""Diverse peers: each learns from its own mixture of them, and a leader from all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ensemble_kd.errors import UserError
from ensemble_kd.functional import merged_kl, spread, uncast, wide
from ensemble_kd.networks.penultimate import classifier
from ensemble_kd.objectives import Objective, Term
from ensemble_kd.schedules import Positive, Schedule
from ensemble_kd.strategies.branches import Branches, Descended, prefixed
from ensemble_kd.strategies.lesson import detached
from ensemble_kd.strategies.strategy import Strategy
from ensemble_kd.teachers.ensemble import Ensemble
from ensemble_kd.types import Batch, Output, Progress, Turn
from ensemble_kd.weightings import Weighting

Mixture = Literal["probabilities", "logits"]
Targets = Literal["detached", "attached"]


class Attention(nn.Module):
    """How much each peer listens to each: softmax_b(q_a . k_b), unscaled, itself included.

    q = W_q f and k = W_k f are shared projections, without bias, of the features f that the peers'
    classifiers see.

    Args:
        features: size of the features, the same for all peers.
        factor: by how much the projections are smaller.

    Raises:
        ValueError: an argument is not positive.
    """

    def __init__(self, features: int, factor: int = 8) -> None:
        super().__init__()
        if factor < 1:
            raise ValueError(f"factor must be >= 1, got {factor}")
        size = max(features // factor, 1)
        self.query = nn.Linear(features, size, bias=False)
        self.key = nn.Linear(features, size, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """(m, b, d) to (a, m, b): each peer's weights over all m, summing to one; a = m peers."""
        # a: the peer that listens, m: the peer that is heard, b: batch, k: projection
        with uncast(features):
            features = wide(features)
            scores = torch.einsum("abk,mbk->amb", self.query(features), self.key(features))
        return scores.softmax(dim=1)


class Mixed(Objective):
    """T^2 KL(mixture of the peers || own), whose gradient also flows into the mixture.

    As ``Soft`` with the merge ``probabilities`` or ``logits``, but for one thing: peers that come
    attached receive gradient.

    Args:
        temperature: T, a positive number or a schedule of the stage's progress.
        mixture: mix the peers' softened probabilities, or their logits.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self, temperature: float | Schedule = 3.0, mixture: Mixture = "probabilities"
    ) -> None:
        super().__init__()
        if mixture not in get_args(Mixture):
            raise ValueError(f"mixture must be probabilities or logits, got {mixture!r}")
        self.temperature = Positive(temperature, "temperature")
        self.mixture: Mixture = mixture

    def forward(
        self,
        student: Output,
        teachers: tuple[Output, ...],
        weights: Tensor,
        batch: Batch,
        progress: Progress,
    ) -> Tensor:
        """(*,) divergence of each sample."""
        temperature = self.temperature(progress.fraction)
        logits = torch.stack([wide(teacher.logits) for teacher in teachers])
        values = merged_kl(logits, student.logits, weights, temperature, self.mixture)
        return temperature**2 * values


class OKDDip(Strategy):
    """Two levels: peers learn from mixtures of each other, the student from all of them.

    The student is the group leader: it teaches nobody and is delivered. Each peer a descends
    T^2 KL(t_a || p_a) (``peers_soft``) with a target t_a = sum_b w_ab p_b of its own, whose weights
    come from an attention over the peers' features; the student descends it with the mean of the
    peers as target. All of them descend the terms that need no teacher, and the others under the
    frozen teachers, where there are any. Losses are summed over the branches.

    The projections of the attention appear nowhere but in the targets: a target that is detached as
    a whole would leave them as they were drawn. So it is only the peers' predictions that
    ``targets="detached"`` takes out of the graph; the weights stay in it. Nothing keeps a peer from
    listening to itself more and more, which makes its soft loss small: how much is measured
    (``attention_to_itself``).

    Source: Chen et al., Online Knowledge Distillation with Diverse Peers (arXiv 1912.00350), with
    temperature 3, three peers and the soft terms ramped up over 80 of 300 epochs (``RampUp``, there
    once per epoch). The authors' code (DefangChen/OKDDip-AAAI2020 at c6a05de) differs: it mixes
    logits (``mixture="logits"``) and leaves the predictions in the targets attached
    (``targets="attached"``), so that peers also move towards those whom they teach. Its form of the
    attention, a plain unscaled dot product with itself included, is what is done here. Left out:
    the 1e-7 that it adds to every target, after which they no longer sum to one.

    Args:
        peers: the networks beside the student, at least one; with a split they are like the
            student, without one their classifiers' features must be of one size.
        terms: what is matched, by name: those that need no teacher by everybody, the others under
            the frozen teachers only.
        weighting: how much each frozen teacher counts.
        split: path of the first module that each branch has for itself; None for networks apart.
        temperature: T of the mixtures, a positive number or a schedule.
        soft_weight: weight of the terms with a mixture as target.
        ramp: factor on all terms that need a teacher, as a function of the stage's progress.
        mixture: whether a target mixes softened predictions or logits.
        targets: whether the predictions that are mixed receive gradient from those who learn from
            them.
        factor: by how much the projections are smaller than the features.

    Raises:
        ValueError: an argument is out of range.
        UserError: a peer cannot be cut at the split, or features differ in size.
    """

    def __init__(
        self,
        peers: list[nn.Module],
        terms: dict[str, Term],
        weighting: Weighting,
        split: str | None = None,
        temperature: float | Schedule = 3.0,
        soft_weight: float = 1.0,
        ramp: Schedule | None = None,
        mixture: Mixture = "probabilities",
        targets: Targets = "detached",
        factor: int = 8,
    ) -> None:
        super().__init__()
        if targets not in get_args(Targets):
            raise ValueError(f"targets must be detached or attached, got {targets!r}")
        self.branches = Branches(peers, split)
        self.descended = Descended(terms, weighting, ramp)
        self.mixed = Term(Mixed(temperature, mixture), soft_weight, ramp)
        self.targets: Targets = targets
        sizes = [classifier(peer).in_features for peer in peers]
        if len(set(sizes)) > 1:
            raise UserError(
                "strategy.peers: expected networks whose classifiers see features of one size, "
                f"which the attention compares, got {', '.join(map(str, sizes))}"
            )
        self.attention = Attention(sizes[0], factor)

    def meet(self, student: nn.Module) -> None:
        """See that the peers fit the student."""
        self.branches.check(student)

    def predictors(self, student: nn.Module) -> dict[str, nn.Module]:
        """``student``, which is the leader, then ``peer/1``, ``peer/2`` and so on."""
        return self.branches.predictors(self.branches.networks(student))

    def turns(
        self, student: nn.Module, teachers: Ensemble, batch: Batch, progress: Progress
    ) -> Iterator[Turn]:
        """One turn: leader, peers and attention step together."""
        taught = teachers(batch, progress)
        heard = self.branches.run(student, [batch.inputs], progress)
        leader, *peers = heard.outputs
        attention = self.attention(torch.stack(heard.features[1:]))
        equal = spread(torch.full((len(peers),), 1 / len(peers)), leader.logits)
        weights = [equal, *(_per_sample(own, leader.logits) for own in attention)]
        attached = self.targets == "attached"
        voices = tuple(peer if attached else detached(peer) for peer in peers)
        names = self.branches.names()
        terms: dict[str, Tensor] = {}
        for name, branch, own_weights in zip(names, heard.outputs, weights, strict=True):
            own = self.descended.own(branch, batch, progress)
            own["peers_soft"] = self.mixed(branch, voices, own_weights, batch, progress)
            own |= self.descended.taught(branch, taught, batch, progress)
            terms |= prefixed(name, own)
        to_itself = attention.detach().diagonal().mean(dim=0)
        measured = {
            f"{name}/attention_to_itself": share
            for name, share in zip(names[1:], to_itself, strict=True)
        }
        yield Turn("student", terms, measured)


def _per_sample(weights: Tensor, logits: Tensor) -> Tensor:
    """Weights (m, b) for logits (b, c), or the same for each token of logits (b, l, c)."""
    places = logits.shape[1:-1]
    return weights.view(*weights.shape, *(1 for _ in places)).expand(*weights.shape, *places)
