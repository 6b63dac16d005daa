"""Collaborative learning: heads on one trunk learn from the mean of the others."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ensemble_kd.functional import wide
from ensemble_kd.objectives import Term
from ensemble_kd.schedules import Schedule
from ensemble_kd.strategies.branches import Branches, Descended, prefixed
from ensemble_kd.strategies.strategy import Strategy
from ensemble_kd.teachers.ensemble import Ensemble
from ensemble_kd.types import Batch, Output, Progress, Turn
from ensemble_kd.weightings import Weighting


class Collaborative(Strategy):
    """Every branch descends the terms under the mean of the other branches' logits, detached.

    Losses are summed over the branches, so the shared trunk would see a gradient that grows with
    their number; ``rescale`` divides it by that number where it enters the trunk, and leaves the
    heads' gradients alone.

    Source: CL-ILR, Song and Chai, Collaborative Learning for Deep Neural Networks (arXiv
    1805.11761): sharing of intermediate-level representations (ILR) with backpropagation rescaling.
    With the weights beta and 1 - beta on the label and the soft term the losses are the paper's; it
    has no ramp. The port in OKDDip's repository (DefangChen/OKDDip-AAAI2020 at c6a05de) has weights
    of one, a ramp, and targets that stay attached. Deviations: one point where branches part, where
    the paper can have a tree of them; networks apart are its form without sharing, with nothing to
    rescale; frozen teachers, where there are any, are heard beside the mean.

    Args:
        peers: the networks beside the student, at least one; each gives a branch. With a split they
            are like the student.
        terms: what is matched, by name.
        weighting: how much each voice counts; the mean of the others comes first, then the
            teachers.
        split: path of the first module that each branch has for itself; None for networks apart.
        rescale: divide the gradient that enters the trunk by the number of branches.
        ramp: factor on the terms that need a teacher, as a function of the stage's progress.

    Raises:
        ValueError: an argument is out of range.
        UserError: a peer cannot be cut at the split.
    """

    def __init__(
        self,
        peers: list[nn.Module],
        terms: dict[str, Term],
        weighting: Weighting,
        split: str | None = None,
        rescale: bool = True,
        ramp: Schedule | None = None,
    ) -> None:
        super().__init__()
        self.branches = Branches(peers, split)
        self.descended = Descended(terms, weighting, ramp)
        self.rescale = rescale

    def meet(self, student: nn.Module) -> None:
        """See that the peers fit the student."""
        self.branches.check(student)

    def predictors(self, student: nn.Module) -> dict[str, nn.Module]:
        """``student``, ``peer/1``, ``peer/2`` and so on."""
        return self.branches.predictors(self.branches.networks(student))

    def turns(
        self, student: nn.Module, teachers: Ensemble, batch: Batch, progress: Progress
    ) -> Iterator[Turn]:
        """One turn: all branches step together."""
        taught = teachers(batch, progress)
        names = self.branches.names()
        factor = 1 / len(names) if self.rescale else 1.0
        heard = self.branches.run(student, [batch.inputs], progress, factor)
        logits = torch.stack([wide(output.logits.detach()) for output in heard.outputs])
        terms: dict[str, Tensor] = {}
        for number, (name, branch) in enumerate(zip(names, heard.outputs, strict=True)):
            others = torch.cat([logits[:number], logits[number + 1 :]])
            voices = (Output(others.mean(dim=0)), *taught)
            own = self.descended.own(branch, batch, progress)
            own |= self.descended.taught(branch, voices, batch, progress)
            terms |= prefixed(name, own)
        yield Turn("student", terms)
