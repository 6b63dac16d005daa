"""What holds for every network."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from ensemble_kd.export import constructor_of
from ensemble_kd.networks import (
    Cnn,
    Mlp,
    MobileNetV2,
    ResNet,
    ShuffleNetV2,
    Vgg,
    WideResNet,
    check_cut,
    cut,
)

Settled = Callable[[nn.Module], nn.Module]
Shape = tuple[int, int, int]

SMALL: dict[str, Callable[[Shape, int], nn.Sequential]] = {
    "cnn": lambda inputs, classes: Cnn(inputs, classes, [4, 8, 12]),
    "cnn-grid": lambda inputs, classes: Cnn(inputs, classes, [4, 8], grid=2, dropout=0.2),
    "mlp": lambda inputs, classes: Mlp(inputs, classes, [8, 6], dropout=0.2),
    "mlp-plain": lambda inputs, classes: Mlp(inputs, classes, [8], batch_norm=False),
    "resnet": lambda inputs, classes: ResNet(inputs, classes, 14, [4, 6, 8, 12]),
    "resnet-padded": lambda inputs, classes: ResNet(inputs, classes, 6, [4, 6, 8], False),
    "wide_resnet": lambda inputs, classes: WideResNet(inputs, classes, 16, 1, dropout=0.2),
    "vgg": lambda inputs, classes: Vgg(inputs, classes, [[4, 4], [6], [8], [10]]),
    "mobilenet": lambda inputs, classes: MobileNetV2(inputs, classes, 0.125, 2),
    "shufflenet": lambda inputs, classes: ShuffleNetV2(inputs, classes, [8, 16], [1, 1], 4, 20),
}
SHAPES: list[Shape] = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (2, 9, 7)]


def batch(shape: Shape, size: int = 3) -> Tensor:
    return torch.randn(size, *shape, generator=torch.Generator().manual_seed(3))


def leaves(network: nn.Module) -> Iterator[nn.Module]:
    """What runs, in the order of the children, entering sequences only."""
    for child in network.children():
        if isinstance(child, nn.Sequential):
            yield from leaves(child)
        else:
            yield child


def paths(network: nn.Module, prefix: str = "") -> Iterator[str]:
    """The paths of all modules that can be reached through sequences."""
    for name, child in network.named_children():
        yield prefix + name
        if isinstance(child, nn.Sequential):
            yield from paths(child, f"{prefix}{name}.")


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("shape", SHAPES)
def test_any_image_becomes_logits(name: str, shape: Shape) -> None:
    network = SMALL[name](shape, 5)
    logits = network(batch(shape))
    assert logits.shape == (3, 5)
    assert logits.dtype == torch.float32
    logits.sum().backward()
    for path, parameter in network.named_parameters():
        assert parameter.grad is not None, path
        assert torch.isfinite(parameter.grad).all(), path


@pytest.mark.parametrize("name", SMALL)
def test_a_single_sample_can_be_classified(name: str, settled: Settled) -> None:
    network = settled(SMALL[name]((1, 8, 8), 5))
    several = batch((1, 8, 8))
    with torch.no_grad():
        alone = torch.cat([network(sample[None]) for sample in several])
        torch.testing.assert_close(network(several), alone)


@pytest.mark.parametrize("name", SMALL)
def test_its_children_run_one_after_the_other(name: str, settled: Settled) -> None:
    network = settled(SMALL[name]((1, 8, 8), 5))
    inputs = batch((1, 8, 8))
    with torch.no_grad():
        expected = network(inputs)
        out = inputs
        for _, child in network.named_children():
            out = child(out)
        assert torch.equal(out, expected)
        out = inputs
        for leaf in leaves(network):
            out = leaf(out)
        assert torch.equal(out, expected)


@pytest.mark.parametrize("name", SMALL)
def test_it_can_be_cut_before_every_module_of_its_sequences(name: str, settled: Settled) -> None:
    network = settled(SMALL[name]((1, 8, 8), 5))
    inputs = batch((1, 8, 8))
    entry = next(leaves(network))
    with torch.no_grad():
        expected = network(inputs)
    cuts = 0
    for path in paths(network):
        if next(leaves(nn.Sequential(network.get_submodule(path)))) is entry:
            continue  # nothing runs before it
        halves = cut(network, path)
        check_cut(network, path, inputs)
        with torch.no_grad():
            assert torch.equal(halves.head(halves.trunk(inputs)), expected)
        cuts += 1
    assert cuts >= 3


@pytest.mark.parametrize("name", SMALL)
def test_the_names_of_its_parts_can_be_read(name: str) -> None:
    names = [child for child, _ in SMALL[name]((1, 8, 8), 5).named_children()]
    assert names[-1] == "classifier"
    assert "layers" in names or "stages" in names
    assert not any(child.isdigit() for child in names)


@pytest.mark.parametrize("name", SMALL)
def test_it_keeps_its_arguments(name: str) -> None:
    network = SMALL[name]((1, 8, 8), 5)
    node = constructor_of(network)
    assert node is not None
    again = type(network)(**{key: value for key, value in node.items() if key != "_target_"})
    assert vars(again).keys() == vars(network).keys()
    for argument in inspect.signature(type(network)).parameters:
        assert vars(again)[argument] == vars(network)[argument]
    again.load_state_dict(network.state_dict())
    inputs = batch((1, 8, 8))
    assert torch.equal(again.eval()(inputs), network.eval()(inputs))


@pytest.mark.parametrize("name", SMALL)
def test_the_seed_decides_the_initial_weights(name: str) -> None:
    def state(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        return SMALL[name]((1, 8, 8), 5).state_dict()

    one, again, other = state(1), state(1), state(2)
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", SMALL)
def test_a_feature_is_not_changed_by_what_follows(name: str, settled: Settled) -> None:
    """No part works in place, so that a tapped feature stays what it was."""
    network = settled(SMALL[name]((1, 8, 8), 5))
    tapped: list[tuple[str, Tensor, Tensor]] = []
    for path, part in network.named_modules():
        part.register_forward_hook(
            lambda _, __, out, path=path: tapped.append((path, out, out.clone()))
        )
    with torch.no_grad():
        network(batch((1, 8, 8)))
    assert len(tapped) > 5
    for path, feature, kept in tapped:
        assert torch.equal(feature, kept), path


@pytest.mark.parametrize("name", SMALL)
def test_a_copy_is_the_same(name: str, settled: Settled) -> None:
    network = settled(SMALL[name]((1, 8, 8), 5))
    inputs = batch((1, 8, 8))
    assert torch.equal(copy.deepcopy(network)(inputs), network(inputs))


def test_dropout_is_where_it_was_asked_for() -> None:
    for network in (
        Cnn((1, 8, 8), 5, [4], dropout=0.3),
        Mlp((1, 8, 8), 5, [4, 4], dropout=0.3),
        WideResNet((1, 8, 8), 5, 10, 1, dropout=0.3),
    ):
        shares = [part.p for part in network.modules() if isinstance(part, nn.Dropout)]
        assert shares
        assert set(shares) == {0.3}
    plain = WideResNet((1, 8, 8), 5, 10, 1)
    assert not any(isinstance(part, nn.Dropout) for part in plain.modules())


def test_convolutions_start_with_the_variance_of_their_fan_out() -> None:
    torch.manual_seed(0)
    network = ResNet((3, 32, 32), 10, 8, [32, 64, 128, 256])
    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            expected = 2 / (part.out_channels * part.kernel_size[0] ** 2)
            assert part.weight.var().item() == pytest.approx(expected, rel=0.15)


IMAGE = (1, 8, 8)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Cnn((64,), 5), r"inputs must be \(channels, height, width\), got \[64\]"),
        (lambda: Cnn((0, 8, 8), 5), r"inputs must be \(channels, height, width\), got \[0, 8, 8\]"),
        (lambda: Cnn(IMAGE, 1), "classes must be >= 2, got 1"),
        (lambda: Cnn(IMAGE, 5, []), r"widths must be one or more sizes >= 1, got \[\]"),
        (lambda: Cnn(IMAGE, 5, [4, 0]), r"widths must be one or more sizes >= 1, got \[4, 0\]"),
        (lambda: Cnn(IMAGE, 5, kernel=4), "kernel must be odd, got 4"),
        (lambda: Cnn(IMAGE, 5, grid=0), "grid must be >= 1, got 0"),
        (lambda: Cnn(IMAGE, 5, dropout=1.0), r"dropout must be in \[0, 1\), got 1.0"),
        (lambda: Mlp((), 5), r"inputs must be one or more sizes >= 1, got \[\]"),
        (lambda: Mlp(IMAGE, 5, []), r"hidden must be one or more sizes >= 1, got \[\]"),
        (lambda: Mlp(IMAGE, 5, dropout=-0.1), r"dropout must be in \[0, 1\), got -0.1"),
        (lambda: ResNet(IMAGE, 5, 21), "depth must be 6 n . 2 for 3 stages.*got 21"),
        (lambda: ResNet(IMAGE, 5, 2), "depth must be 6 n . 2 for 3 stages.*got 2"),
        (lambda: ResNet(IMAGE, 5, 8, [4]), r"widths must be those of the stem and of a stage, got"),
        (lambda: ResNet(IMAGE, 5, 8, [8, 4, 4, 4], False), "channels must be >= 0, got -4"),
        (lambda: WideResNet(IMAGE, 5, 20), "depth must be 6 n . 4.*got 20"),
        (lambda: WideResNet(IMAGE, 5, 4), "depth must be 6 n . 4.*got 4"),
        (lambda: WideResNet(IMAGE, 5, widen=0), "widen must be >= 1, got 0"),
        (lambda: Vgg(IMAGE, 5, []), r"widths must be those of one or more stages, got \[\]"),
        (lambda: Vgg(IMAGE, 5, [[4], []]), "widths of a stage must be one or more sizes"),
        (lambda: Vgg(IMAGE, 5, [[4], [4]], 2), "halved must be from 0 to 1, got 2"),
        (lambda: Vgg((1, 4, 4), 5), "inputs must be at least 8 pixels high and wide"),
        (lambda: MobileNetV2(IMAGE, 5, 0.01), "width must be >= 1/16, got 0.01"),
        (lambda: MobileNetV2(IMAGE, 5, expansion=0), "expansion must be >= 1, got 0"),
        (lambda: ShuffleNetV2(IMAGE, 5, [3, 4], [1, 1]), r"widths must be even, got \[3, 4\]"),
        (lambda: ShuffleNetV2(IMAGE, 5, [4, 4], [1]), r"blocks must be 2 numbers >= 0, got \[1\]"),
        (lambda: ShuffleNetV2(IMAGE, 5, features=0), "features must be >= 1, got 0"),
    ],
)
def test_bad_arguments(build: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
