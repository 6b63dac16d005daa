from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ensemble_kd.errors import UserError
from ensemble_kd.networks import Cnn, Mlp, MobileNetV2, ResNet, ShuffleNetV2, Vgg, WideResNet
from ensemble_kd.networks.feature_map import FeatureMap, find_feature_map
from ensemble_kd.networks.taps import listen

COLOUR = (3, 32, 32)
NETWORKS: list[tuple[Callable[[], nn.Module], FeatureMap]] = [
    (lambda: Cnn(COLOUR, 10, widths=(4, 6), grid=2), FeatureMap("stages", 6)),
    (lambda: ResNet(COLOUR, 10, depth=8), FeatureMap("stages", 64)),
    (lambda: WideResNet(COLOUR, 10, depth=10, widen=1), FeatureMap("activation", 64)),
    (lambda: Vgg(COLOUR, 10), FeatureMap("stages", 512)),
    (lambda: MobileNetV2(COLOUR, 10), FeatureMap("head", 1280)),
    (lambda: ShuffleNetV2(COLOUR, 10), FeatureMap("head", 1024)),
]


class Convolved(nn.Module):
    """Classifies by a convolution, and has a layer that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 3, 3, padding=1)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classify = nn.Conv2d(3, 4, 1)
        self.spare = nn.Conv2d(1, 1, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        features = self.relu(self.first(inputs))
        said: Tensor = self.classify(self.pool(features)).flatten(1)
        return said


@pytest.mark.parametrize(("make", "found"), NETWORKS, ids=lambda each: getattr(each, "layer", ""))
def test_the_last_map_is_what_the_last_convolution_leaves_behind(
    make: Callable[[], nn.Module], found: FeatureMap
) -> None:
    network = make().eval()
    assert find_feature_map(network, COLOUR) == found
    assert find_feature_map(network, COLOUR, found.layer) == found
    with torch.no_grad():
        said = listen(network, torch.randn(2, *COLOUR), [found.layer])
    caught = said.features[found.layer]
    assert caught.ndim == 4
    assert caught.shape[1] == found.channels
    assert (caught >= 0).all()  # after the activation
    assert said.logits.shape == (2, 10)


def test_a_convolution_that_classifies_is_no_feature_map() -> None:
    assert find_feature_map(Convolved(), (1, 8, 8)) == FeatureMap("relu", 3)
    # Nothing else to take where all maps have a single place.
    assert find_feature_map(Convolved(), (1, 1, 1)) == FeatureMap("classify", 4)


def test_the_network_is_left_as_it_was() -> None:
    network = Cnn((1, 8, 8), 10, widths=(4, 6))
    network.get_submodule("stages").eval()
    modes = [module.training for module in network.modules()]
    before = copy.deepcopy(network.state_dict())
    find_feature_map(network, (1, 8, 8))
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ("stage", r"Cnn has no module 'stage'; did you mean 'stages'"),
        ("classifier", r"got 'classifier', which gives a tensor of shape \(b, 10\)"),
    ],
)
def test_a_layer_that_gives_no_map_is_refused(layer: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        find_feature_map(Cnn((1, 8, 8), 10, widths=(4, 6)), (1, 8, 8), layer)


def test_a_layer_that_does_not_run_is_refused() -> None:
    with pytest.raises(UserError, match="got 'spare', which gives nothing"):
        find_feature_map(Convolved(), (1, 8, 8), "spare")


def test_a_network_without_maps_is_refused() -> None:
    with pytest.raises(UserError, match=r"expected a convolutional network .*, got Mlp"):
        find_feature_map(Mlp((1, 8, 8), 10), (1, 8, 8))


def test_samples_that_do_not_fit_are_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"Cnn fails on samples of shape \(2, 8, 8\)") as failure:
        find_feature_map(Cnn((1, 8, 8), 10), (2, 8, 8))
    assert "\n" not in str(failure.value)
