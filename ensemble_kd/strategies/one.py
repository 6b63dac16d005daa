"""On-the-fly native ensemble: branches learn from their gated ensemble."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, get_args

from torch import nn

from ensemble_kd.networks.branched import trunk_size
from ensemble_kd.networks.gated import Gate, Gated
from ensemble_kd.networks.penultimate import classifier
from ensemble_kd.objectives import Term
from ensemble_kd.schedules import Schedule
from ensemble_kd.strategies.branches import Branches, Descended, prefixed
from ensemble_kd.strategies.lesson import detached
from ensemble_kd.strategies.strategy import Strategy
from ensemble_kd.teachers.ensemble import Ensemble
from ensemble_kd.types import Batch, Output, Progress, Turn
from ensemble_kd.weightings import Weighting

Delivered = Literal["student", "ensemble"]


class One(Strategy):
    """Every branch descends the terms under the gated ensemble of all branches, detached.

    The ensemble, sum_i g_i z_i with a gate g on the features of the shared trunk, descends the
    terms that need no teacher: so the gate learns, and the branches through it. Losses are summed
    over the branches.

    Source: ONE, Lan, Zhu and Gong, Knowledge Distillation by On-the-Fly Native Ensemble (arXiv
    1806.04606), with temperature 3, three branches that part before the last stage, and a soft term
    of weight one. The ramp is that of the authors' code (Lan1991Xu/ONE_NeurIPS2018 at 54afde3:
    ``RampUp`` over 80 of 300 epochs, there once per epoch). The student is their ONE, the gated
    ensemble their ONE-E. The target is detached as in the authors' code; the port in OKDDip's
    repository leaves it attached. Deviations: the objective decides what is matched, and frozen
    teachers, where there are any, are heard beside the ensemble; of networks apart, for which the
    paper has no gate, it sees the features of all their classifiers.

    Args:
        peers: the networks beside the student, at least one; each gives a branch. With a split they
            are like the student.
        terms: what is matched, by name.
        weighting: how much each voice counts; the gated ensemble comes first, then the teachers.
        inputs: shape of one sample.
        split: path of the first module that each branch has for itself; None for networks apart.
        ramp: factor on the terms that need a teacher, as a function of the stage's progress.
        deliver: what is exported: the student, or the gated ensemble. Then the predictor
            ``student`` is the ensemble, and ``peer/0`` the student by itself.

    Raises:
        ValueError: an argument is out of range.
        UserError: a peer cannot be cut at the split.
    """

    def __init__(
        self,
        peers: list[nn.Module],
        terms: dict[str, Term],
        weighting: Weighting,
        inputs: Sequence[int],
        split: str | None = None,
        ramp: Schedule | None = None,
        deliver: Delivered = "student",
    ) -> None:
        super().__init__()
        if deliver not in get_args(Delivered):
            raise ValueError(f"deliver must be student or ensemble, got {deliver!r}")
        self.branches = Branches(peers, split)
        self.descended = Descended(terms, weighting, ramp)
        self.inputs = tuple(inputs)
        self.deliver: Delivered = deliver
        self.gate: Gate | None = None

    def meet(self, student: nn.Module) -> None:
        """Make the gate for the features that it will see."""
        self.branches.check(student)
        networks, split = self.branches.networks(student), self.branches.split
        if split is None:
            features = sum(classifier(network).in_features for network in networks)
        else:
            features = trunk_size(student, split, self.inputs)
        self.gate = Gate(features, len(networks)).to(classifier(student).weight)

    def predictors(self, student: nn.Module) -> dict[str, nn.Module]:
        """``student``, ``peer/1`` and so on, and ``gated``; see ``deliver`` for the other order."""
        own = self.branches.predictors(self.branches.networks(student))
        gated = self._gated(student)
        if self.deliver == "student":
            return {**own, "gated": gated}
        return {"student": gated, "peer/0": own.pop("student"), **own}

    def deliverable(self, student: nn.Module) -> nn.Module:
        """The student, or the gated ensemble."""
        return student if self.deliver == "student" else self._gated(student)

    def turns(
        self, student: nn.Module, teachers: Ensemble, batch: Batch, progress: Progress
    ) -> Iterator[Turn]:
        """One turn: all branches and the gate step together."""
        taught = teachers(batch, progress)
        heard = self.branches.run(student, [batch.inputs], progress)
        logits, shares = self._met().mix(heard)
        ensemble = Output(logits)
        voices = (detached(ensemble), *taught)
        terms = prefixed("gated", self.descended.own(ensemble, batch, progress))
        for name, branch in zip(self.branches.names(), heard.outputs, strict=True):
            own = self.descended.own(branch, batch, progress)
            own |= self.descended.taught(branch, voices, batch, progress)
            terms |= prefixed(name, own)
        means = shares.detach().mean(dim=1)
        measured = {
            f"{name}/gate": mean for name, mean in zip(self.branches.names(), means, strict=True)
        }
        yield Turn("student", terms, measured)

    def _gated(self, student: nn.Module) -> Gated:
        gated = Gated(self.branches.networks(student), self._met(), self.branches.split)
        # A fresh module is in training mode, whatever its parts are in.
        gated.training = gated.networks.training = student.training
        return gated

    def _met(self) -> Gate:
        if self.gate is None:
            raise ValueError("the strategy must meet the student before it is used")
        return self.gate
