"""Networks of the same shape, wider or narrower."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from ensemble_kd.export import constructor_of
from ensemble_kd.networks import Cnn, Mlp, MobileNetV2, ResNet, ShuffleNetV2, Vgg, WideResNet
from ensemble_kd.networks.scaling import scaled

IMAGE = (3, 16, 16)

MAKERS: dict[str, Callable[..., nn.Module]] = {
    "cnn": lambda scale: Cnn(IMAGE, 5, [8, 20, 31], grid=2, scale=scale),
    "mlp": lambda scale: Mlp(IMAGE, 5, [32, 17], scale=scale),
    "resnet": lambda scale: ResNet(IMAGE, 5, 8, [12, 12, 24, 48], scale=scale),
    "padded": lambda scale: ResNet(IMAGE, 5, 8, projection=False, scale=scale),
    "vgg": lambda scale: Vgg(IMAGE, 5, [[8], [12, 16], [20]], scale=scale),
    "wide": lambda scale: WideResNet(IMAGE, 5, 10, 2, scale=scale),
    "mobilenet": lambda scale: MobileNetV2(IMAGE, 5, 0.5, scale=scale),
    "shufflenet": lambda scale: ShuffleNetV2(IMAGE, 5, [24, 50, 96], [1, 1, 1], scale=scale),
}
SCALED: dict[str, Callable[[], nn.Module]] = {
    "cnn": lambda: Cnn(IMAGE, 5, [4, 10, 16], grid=2),
    "mlp": lambda: Mlp(IMAGE, 5, [16, 9]),
    "resnet": lambda: ResNet(IMAGE, 5, 8, [6, 6, 12, 24]),
    "padded": lambda: ResNet(IMAGE, 5, 8, [8, 8, 16, 32], projection=False),
    "vgg": lambda: Vgg(IMAGE, 5, [[4], [6, 8], [10]]),
    "wide": lambda: WideResNet(IMAGE, 5, 10, 1),
    "mobilenet": lambda: MobileNetV2(IMAGE, 5, 0.25),
    "shufflenet": lambda: ShuffleNetV2(IMAGE, 5, [12, 26, 48], [1, 1, 1], 12, 512),
}
"""The same at half the width, written out."""


def shapes(network: nn.Module) -> dict[str, Any]:
    return {name: value.shape for name, value in network.state_dict().items()}


@pytest.mark.parametrize("name", MAKERS)
def test_half_as_wide(name: str) -> None:
    network = MAKERS[name](0.5)
    expected = shapes(SCALED[name]())
    if name == "wide":
        # The stem of a wide network is as wide whatever the factor, but not when it is scaled.
        assert shapes(network)["stem.weight"][0] == 8
        assert shapes(network)["classifier.weight"] == expected["classifier.weight"]
    else:
        assert shapes(network) == expected
    assert network.eval()(torch.zeros(2, *IMAGE)).shape == (2, 5)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("scale", [0.2, 0.5, 1.3, 2.0])
def test_runs_and_is_recorded(name: str, scale: float) -> None:
    network = MAKERS[name](scale)
    with torch.no_grad():
        assert network.eval()(torch.zeros(2, *IMAGE)).shape == (2, 5)
    node = constructor_of(network)
    assert node is not None
    assert node["scale"] == scale
    assert constructor_of(MAKERS[name](1.0)) == {**node, "scale": 1.0}


@pytest.mark.parametrize("name", MAKERS)
def test_a_scale_of_one_changes_nothing(name: str) -> None:
    torch.manual_seed(0)
    network = MAKERS[name](1)
    node = constructor_of(network)
    assert node is not None
    del node["scale"]
    from ensemble_kd.build import build

    torch.manual_seed(0)
    same = build(node, "student").state_dict()
    assert shapes(network) == {key: value.shape for key, value in same.items()}
    assert all(torch.equal(value, same[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("scale", [0.01, 0.3, 0.5, 0.77, 1.5, 3.0])
@pytest.mark.parametrize("multiple", [1, 2, 8])
def test_rounds_to_the_nearest_multiple(scale: float, multiple: int) -> None:
    widths = (1, 3, 16, 20, 30, 64, 232)
    for width, found in zip(widths, scaled(widths, scale, multiple), strict=True):
        candidates = range(multiple, 1000, multiple)
        nearest = min(candidates, key=lambda each: (abs(each - width * scale), -each))
        assert found == nearest


def test_an_odd_width_stays_at_a_scale_of_one() -> None:
    assert scaled([3, 5], 1.0, 8) == (3, 5)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, math.nan])
def test_scales_out_of_range(name: str, scale: float) -> None:
    with pytest.raises(ValueError, match=r"^scale must be a finite number > 0, got"):
        MAKERS[name](scale)
