"""Feature fusion: the networks' fused feature maps are their teacher, and they are its teacher."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ensemble_kd.functional import wide
from ensemble_kd.networks.feature_map import find_feature_map
from ensemble_kd.networks.fused import Fused, Fuser
from ensemble_kd.networks.taps import listen
from ensemble_kd.objectives import Term
from ensemble_kd.schedules import Schedule
from ensemble_kd.strategies.branches import Branches, Descended, prefixed
from ensemble_kd.strategies.lesson import detached
from ensemble_kd.strategies.strategy import Strategy
from ensemble_kd.teachers.ensemble import Ensemble
from ensemble_kd.types import Batch, Output, Progress, Turn
from ensemble_kd.weightings import Weighting

Delivered = Literal["student", "fused"]


class Fusion(Strategy):
    """A fused classifier teaches each network, and their ensemble teaches the fused classifier.

    Every network descends the terms under the fused classifier's detached output, the fused
    classifier descends them under the networks' mean logits, detached. Its input, the last feature
    maps, is not detached: its terms train the networks too. Frozen teachers, where there are any,
    teach all of them beside.

    Source: FFL, Kim et al., Feature Fusion for Online Mutual Knowledge Distillation (arXiv
    1904.09058), equations 1 to 4, with temperature 3 and the soft terms ramped up over the first 80
    of 300 epochs (``RampUp``). Losses are summed over the networks. The single network is its
    FFL-S, the fused classifier its FFL. Deviations: one optimiser, hence one weight decay (the
    authors' code takes 1e-4 for the networks and 1e-5 for the fusion module); networks share no
    layers, where that code shares the early stages of equal networks; any number of networks.

    Args:
        peers: the networks beside the student; at least one; architectures may differ.
        terms: what is matched, by name.
        weighting: how much each teacher counts; the one from within comes first, then the frozen
            ones.
        inputs: shape of one sample.
        classes: number of classes.
        layers: for each network, the student first, the module whose output is its feature map; the
            last map is found if not given.
        ramp: factor on the terms that need a teacher, as a function of the stage's progress.
        deliver: what is exported: the student, or all networks with the fused classifier. Then the
            predictor ``student`` is the fused classifier, and ``peer/0`` the student by itself.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        peers: list[nn.Module],
        terms: dict[str, Term],
        weighting: Weighting,
        inputs: Sequence[int],
        classes: int,
        layers: list[str] | None = None,
        ramp: Schedule | None = None,
        deliver: Delivered = "student",
    ) -> None:
        super().__init__()
        if layers is not None and len(layers) != len(peers) + 1:
            raise ValueError(
                f"layers must name one module per network, {len(peers) + 1} in all, got {layers}"
            )
        if deliver not in get_args(Delivered):
            raise ValueError(f"deliver must be student or fused, got {deliver!r}")
        self.branches = Branches(peers)
        self.descended = Descended(terms, weighting, ramp)
        self.inputs = tuple(inputs)
        self.classes = classes
        self.layers = layers
        self.deliver: Delivered = deliver
        self.fuser: nn.Module | None = None
        self.places: list[str] = []

    def meet(self, student: nn.Module) -> None:
        """Find the feature maps and make the fusion module for them."""
        networks = self.branches.networks(student)
        layers: Sequence[str | None] = self.layers or [None] * len(networks)
        maps = [
            find_feature_map(network, self.inputs, layer)
            for network, layer in zip(networks, layers, strict=True)
        ]
        self.places = [each.layer for each in maps]
        like = next(student.parameters())
        self.fuser = Fuser([each.channels for each in maps], self.classes).to(like)

    def predictors(self, student: nn.Module) -> dict[str, nn.Module]:
        """``student``, ``peer/1`` and so on, and ``fused``; see ``deliver`` for the other order."""
        own = self.branches.predictors(self.branches.networks(student))
        fused = self._fused(student)
        if self.deliver == "student":
            return {**own, "fused": fused}
        return {"student": fused, "peer/0": own.pop("student"), **own}

    def deliverable(self, student: nn.Module) -> nn.Module:
        """The student, or all networks with the fused classifier."""
        return self._fused(student) if self.deliver == "fused" else student

    def turns(
        self, student: nn.Module, teachers: Ensemble, batch: Batch, progress: Progress
    ) -> Iterator[Turn]:
        """One turn: all networks and the fused classifier step together."""
        taught = teachers(batch, progress)
        said: dict[str, Output] = {}
        maps: list[Tensor] = []
        networks = zip(self.branches.names(), self.branches.networks(student), strict=True)
        for (name, network), layer in zip(networks, self.places, strict=True):
            said[name] = listen(network, batch.inputs, [layer])
            maps.append(said[name].features[layer])
        fused = Output(self._met()(maps))
        mean = torch.stack([wide(output.logits.detach()) for output in said.values()]).mean(dim=0)
        terms: dict[str, Tensor] = {}
        for name, output in {**said, "fused": fused}.items():
            voices = (Output(mean) if output is fused else detached(fused), *taught)
            own = self.descended.own(output, batch, progress)
            own |= self.descended.taught(output, voices, batch, progress)
            terms |= prefixed(name, own)
        yield Turn("student", terms)

    def _fused(self, student: nn.Module) -> Fused:
        fused = Fused(self.branches.networks(student), self.places, self._met())
        # A fresh module is in training mode, whatever its parts are in.
        fused.training = fused.networks.training = student.training
        return fused

    def _met(self) -> nn.Module:
        if self.fuser is None:
            raise ValueError("the strategy must meet the student before it is used")
        return self.fuser
