"""Small networks whose BatchNorms have something to say."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ensemble_kd.networks import Cnn, Mlp, MobileNetV2, ResNet, Vgg
from ensemble_kd.teachers.runtimes import BnFolded, ChannelsLast, InPlace, Plain, Runtime

SHAPE = [2, 8, 8]

MAKERS: dict[str, Callable[[], nn.Module]] = {
    "cnn": lambda: Cnn(SHAPE, 5, widths=[6, 8], dropout=0.3),
    "mlp": lambda: Mlp(SHAPE, 5, hidden=[16, 12], dropout=0.3),
    "resnet": lambda: ResNet(SHAPE, 5, depth=8, widths=(4, 4, 6, 8)),
    "vgg": lambda: Vgg(SHAPE, 5, widths=((4,), (6, 6), (8,))),
    "mobilenet": lambda: MobileNetV2(SHAPE, 5, width=0.25),
}

ANY: tuple[Runtime, ...] = (Plain(), InPlace(), BnFolded())
OF_IMAGES: tuple[Runtime, ...] = (ChannelsLast(), BnFolded(channels_last=True))
PAIRS = [
    *((way, name) for way in ANY for name in MAKERS),
    *((way, name) for way in OF_IMAGES for name in MAKERS if name != "mlp"),
]


def frozen(network: nn.Module, seed: int = 0) -> nn.Module:
    """A network in eval mode, with BatchNorm statistics and weights as after a training."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for values, low, high in (
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 2.0),
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.5, 0.5),
            ):
                assert values is not None
                values.uniform_(low, high, generator=generator)
    return network.eval().requires_grad_(False)


@pytest.fixture
def freeze() -> Callable[..., nn.Module]:
    """Puts a network into the state in which it teaches."""
    return frozen


def made(name: str) -> nn.Module:
    torch.manual_seed(3)
    return frozen(MAKERS[name]())


@pytest.fixture(params=list(MAKERS))
def network(request: pytest.FixtureRequest) -> nn.Module:
    """One of the architectures."""
    return made(request.param)


@pytest.fixture(params=PAIRS, ids=lambda pair: f"{pair[0].name}-{pair[1]}")
def pair(request: pytest.FixtureRequest) -> tuple[Runtime, nn.Module]:
    """A way that is quick to prepare, and one of the architectures that it is for."""
    way, name = request.param
    return way, made(name)


@pytest.fixture
def cnns() -> list[nn.Module]:
    """Three networks of one architecture."""
    torch.manual_seed(4)
    return [frozen(MAKERS["cnn"](), seed) for seed in range(3)]


@pytest.fixture
def inputs() -> Tensor:
    """A batch of six images."""
    return torch.randn(6, *SHAPE, generator=torch.Generator().manual_seed(1))
