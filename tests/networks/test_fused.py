from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ensemble_kd.build import build
from ensemble_kd.export import constructor_of
from ensemble_kd.networks import Cnn
from ensemble_kd.networks.fused import Fused, Fuser
from ensemble_kd.networks.taps import listen

Settled = Callable[[nn.Module], nn.Module]


def normed(values: Tensor, norm: nn.Module) -> Tensor:
    """BatchNorm in eval mode, then ReLU, of (d, h, w)."""
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    moved = (values - norm.running_mean[:, None, None]) * scale[:, None, None]
    return (moved + norm.bias[:, None, None]).clamp(min=0)


def reference_fuser(fuser: Fuser, maps: list[Tensor]) -> Tensor:
    """Depthwise 3x3, then 1x1, averages, then the classifier: one place of one map at a time."""
    depthwise = fuser.get_submodule("depthwise.conv").get_parameter("weight")
    pointwise = fuser.get_submodule("pointwise.conv").get_parameter("weight")
    logits = []
    for sample in range(len(maps[0])):
        together = torch.cat([each[sample] for each in maps])
        channels, height, width = together.shape
        apart = torch.zeros_like(together)
        for d in range(channels):
            for h in range(height):
                for w in range(width):
                    for i in (-1, 0, 1):
                        for j in (-1, 0, 1):
                            if 0 <= h + i < height and 0 <= w + j < width:
                                weight = depthwise[d, 0, i + 1, j + 1]
                                apart[d, h, w] += weight * together[d, h + i, w + j]
        apart = normed(apart, fuser.get_submodule("depthwise.norm"))
        mixed = torch.einsum("ed,dhw->ehw", pointwise[:, :, 0, 0], apart)
        mixed = normed(mixed, fuser.get_submodule("pointwise.norm"))
        logits.append(fuser.classifier.weight @ mixed.mean(dim=(1, 2)) + fuser.classifier.bias)
    return torch.stack(logits)


def test_the_module_is_that_of_the_paper(settled: Settled) -> None:
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        fuser = Fuser([3, 3, 3], 5).double()
        settled(fuser)
        maps = [torch.randn(2, 3, 4, 4, dtype=torch.float64) for _ in range(3)]
        torch.testing.assert_close(fuser(maps), reference_fuser(fuser, maps))
    assert fuser.channels == (3, 3, 3)


def test_unlike_maps_can_be_fused() -> None:
    fuser = Fuser([3, 5], 4)
    said = fuser([torch.randn(2, 3, 4, 4), torch.randn(2, 5, 2, 2)])
    assert said.shape == (2, 4)
    said.sum().backward()
    assert all(p.grad is not None for p in fuser.parameters())


@pytest.mark.parametrize(
    ("channels", "classes", "words"),
    [([3, 0], 4, "channels must be .*, got"), ([3], 1, "classes must be >= 2, got 1")],
)
def test_sizes_that_cannot_be_are_refused(channels: list[int], classes: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Fuser(channels, classes)


def parts() -> Fused:
    networks = [Cnn((1, 8, 8), 10, widths=(4, 6)), Cnn((1, 8, 8), 10, widths=(8,))]
    return Fused(networks, ["stages", "stages.0"], Fuser([6, 8], 10))


def test_networks_classify_together_by_their_maps() -> None:
    fused = parts().eval()
    inputs = torch.randn(3, 1, 8, 8)
    maps = [
        listen(network, inputs, [layer]).features[layer]
        for network, layer in zip(fused.networks, fused.layers, strict=True)
    ]
    assert torch.equal(fused(inputs), fused.fuser(maps))


def test_their_features_learn_and_their_classifiers_do_not() -> None:
    fused = parts()
    fused(torch.randn(3, 1, 8, 8)).square().sum().backward()
    for name, parameter in fused.named_parameters():
        own_classifier = name.startswith("networks.") and ".classifier." in name
        assert (parameter.grad is None) == own_classifier, name


def test_its_constructor_is_known() -> None:
    fused = parts()
    node = constructor_of(fused)
    assert node is not None
    again = build(node, "network")
    again.load_state_dict(fused.state_dict())
    inputs = torch.randn(5, 1, 8, 8)
    assert torch.equal(again.eval()(inputs), fused.eval()(inputs))


def test_each_network_needs_its_layer() -> None:
    with pytest.raises(ValueError, match=r"layers must name one module per network, got \['a'\]"):
        Fused([nn.Identity(), nn.Identity()], ["a"], nn.Identity())
