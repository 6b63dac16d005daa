"""Adversarial feature distillation: each network's feature maps learn to pass for another's."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from ensemble_kd.functional import wide
from ensemble_kd.networks.aligned import Aligned
from ensemble_kd.networks.feature_map import find_feature_map
from ensemble_kd.networks.taps import listen
from ensemble_kd.objectives import Term
from ensemble_kd.strategies.branches import Branches, Descended, prefixed
from ensemble_kd.strategies.lesson import detached
from ensemble_kd.strategies.strategy import Strategy
from ensemble_kd.teachers.ensemble import Ensemble
from ensemble_kd.types import Batch, Output, Progress, Turn, as_output
from ensemble_kd.weightings import Weighting


class Critic(nn.Sequential):
    """Tells one network's feature maps (0) from another's (1).

    Two 3x3 convolutions with leaky ReLU, global average pooling, a linear layer and a sigmoid.

    Args:
        channels: channels of the maps.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(
            OrderedDict(
                first=nn.Conv2d(channels, channels, 3, padding=1),
                first_active=nn.LeakyReLU(0.2),
                second=nn.Conv2d(channels, channels, 3, padding=1),
                second_active=nn.LeakyReLU(0.2),
                pool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
                score=nn.Linear(channels, 1),
                probability=nn.Sigmoid(),
            )
        )


class Adversarial(Strategy):
    """Networks in a cycle: each learns the outputs and the feature maps of the one before it.

    The networks are the student and its peers; the teacher of the first is the last one. For each
    batch there are three turns:

    - ``student``: all networks descend the terms under the detached output of their teacher in the
      cycle, and under the frozen teachers, where there are any.
    - ``critic``: with the detached feature maps f_k after that step, the critic D_k of network k
      descends (1 - D_k(f_t))^2 + D_k(f_k)^2, t being the teacher of k.
    - ``generator``: all networks and their transfer layers descend (1 - D_k(f_k))^2, through the
      critics as they are now, which do not move.

    ``student`` and ``generator`` step the same networks by two optimisers, as the paper does,
    because the adversarial loss needs a much smaller learning rate.

    Source: AFD, Chung et al., Feature-map-level Online Adversarial Knowledge Distillation (arXiv
    2002.01775), the losses of its section 3 and, for more than two networks, its cyclic learning.
    No code was published. Deviations and choices: the maps are computed once more after the first
    turn, so that BatchNorm sees each batch twice (a gradient of maps from before the step is not
    that of the stepped weights); the layers of the critic are ours, the paper's could not be
    checked; a transfer layer is a 1x1 convolution to the channels of the student's map, trained
    with its network, and there is none where the channels are the same; maps of unlike size are
    averaged to the smallest.

    Args:
        peers: the networks beside the student; at least one; architectures may differ.
        terms: what is matched, by name.
        weighting: how much each teacher counts; the one in the cycle comes first, then the frozen
            ones.
        inputs: shape of one sample.
        layers: for each network, the student first, the module whose output is its feature map; the
            last map is found if not given.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        peers: list[nn.Module],
        terms: dict[str, Term],
        weighting: Weighting,
        inputs: Sequence[int],
        layers: list[str] | None = None,
    ) -> None:
        super().__init__()
        if layers is not None and len(layers) != len(peers) + 1:
            raise ValueError(
                f"layers must name one module per network, {len(peers) + 1} in all, got {layers}"
            )
        self.branches = Branches(peers)
        self.descended = Descended(terms, weighting)
        self.inputs = tuple(inputs)
        self.layers = layers
        self.transfer: nn.Module | None = None
        self.critics = nn.ModuleList()
        self.places: list[str] = []

    def meet(self, student: nn.Module) -> None:
        """Find the feature maps and make transfer layers and critics for them."""
        networks = self.branches.networks(student)
        layers: Sequence[str | None] = self.layers or [None] * len(networks)
        maps = [
            find_feature_map(network, self.inputs, layer)
            for network, layer in zip(networks, layers, strict=True)
        ]
        self.places = [each.layer for each in maps]
        like = next(student.parameters())
        self.transfer = Aligned([each.channels for each in maps]).to(like)
        self.critics = nn.ModuleList(Critic(maps[0].channels) for _ in networks).to(like)

    def players(self, student: nn.Module) -> dict[str, list[nn.Parameter]]:
        """``student`` and ``generator`` step the networks, ``critic`` the critics."""
        networks = [*student.parameters(), *self.branches.parameters()]
        owned = {
            "student": [*networks, *self.descended.parameters()],
            "critic": list(self.critics.parameters()),
            "generator": [*networks, *self._met().parameters()],
        }
        return {
            name: [p for p in parameters if p.requires_grad] for name, parameters in owned.items()
        }

    def predictors(self, student: nn.Module) -> dict[str, nn.Module]:
        """``student``, ``peer/1``, ``peer/2`` and so on."""
        return self.branches.predictors(self.branches.networks(student))

    def turns(
        self, student: nn.Module, teachers: Ensemble, batch: Batch, progress: Progress
    ) -> Iterator[Turn]:
        """The networks learn outputs, then the critics learn, then the networks fool them."""
        networks = self.predictors(student)
        yield Turn("student", self._descended(networks, teachers, batch, progress))

        maps = self._maps(list(networks.values()), batch)
        seen = [each.detach() for each in maps]
        judged = {
            f"critic/{name}": _squares(critic(seen[number - 1]), 1)
            + _squares(critic(seen[number]), 0)
            for number, (name, critic) in enumerate(zip(networks, self.critics, strict=True))
        }
        yield Turn("critic", judged)

        # Switched off while the graph is made: critics must not receive what networks descend.
        self.critics.requires_grad_(False)
        fooled = {
            f"{name}/adversarial": _squares(critic(each), 1)
            for name, critic, each in zip(networks, self.critics, maps, strict=True)
        }
        self.critics.requires_grad_(True)
        yield Turn("generator", fooled)

    def _descended(
        self,
        networks: dict[str, nn.Module],
        teachers: Ensemble,
        batch: Batch,
        progress: Progress,
    ) -> dict[str, Tensor]:
        taught = teachers(batch, progress)
        said = [as_output(network(batch.inputs)) for network in networks.values()]
        terms: dict[str, Tensor] = {}
        for number, (name, own) in enumerate(zip(networks, said, strict=True)):
            voices: tuple[Output, ...] = (detached(said[number - 1]), *taught)
            losses = self.descended.own(own, batch, progress)
            losses |= self.descended.taught(own, voices, batch, progress)
            terms |= prefixed(name, losses)
        return terms

    def _maps(self, networks: list[nn.Module], batch: Batch) -> list[Tensor]:
        """The networks' feature maps (b, d, h, w), all of one shape."""
        maps = [
            listen(network, batch.inputs, [layer]).features[layer]
            for network, layer in zip(networks, self.places, strict=True)
        ]
        aligned: list[Tensor] = self._met()(maps)
        return aligned

    def _met(self) -> nn.Module:
        if self.transfer is None:
            raise ValueError("the strategy must meet the student before it is used")
        return self.transfer


def _squares(probabilities: Tensor, wanted: float) -> Tensor:
    """Mean squared distance of (b, 1) probabilities from what is wanted."""
    return (wide(probabilities) - wanted).square().mean()
