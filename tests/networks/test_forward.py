"""Each family against its definition, written with plain functions and float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ensemble_kd.networks import Cnn, Mlp, MobileNetV2, ResNet, ShuffleNetV2, Vgg, WideResNet

State = Mapping[str, Tensor]
Settled = Callable[[nn.Module], nn.Module]


def reference_norm(x: Tensor, state: State, name: str) -> Tensor:
    shape = (1, -1, *[1] * (x.dim() - 2))
    mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    centred = (x - mean.view(shape)) / (var.view(shape) + 1e-5).sqrt()
    return centred * state[f"{name}.weight"].view(shape) + state[f"{name}.bias"].view(shape)


def reference_conv(
    x: Tensor, state: State, name: str, stride: int = 1, depthwise: bool = False
) -> Tensor:
    """Convolution and BatchNorm."""
    weight = state[f"{name}.conv.weight"]
    groups = x.shape[1] if depthwise else 1
    out = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=groups)
    return reference_norm(out, state, f"{name}.norm")


def reference_classifier(x: Tensor, state: State) -> Tensor:
    return x @ state["classifier.weight"].T + state["classifier.bias"]


def reference_shuffle(x: Tensor) -> Tensor:
    """Channels of the two halves in turn."""
    half = x.shape[1] // 2
    order = [number // 2 + (number % 2) * half for number in range(2 * half)]
    return x[:, order]


def compare(
    network: nn.Module, inputs: Tensor, reference: Callable[[Tensor, State], Tensor]
) -> None:
    network = network.double()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        torch.testing.assert_close(
            network(inputs.double()), reference(inputs.double(), state), rtol=1e-9, atol=1e-9
        )


def images(side: int, channels: int = 3) -> Tensor:
    return torch.randn(2, channels, side, side, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("grid", [1, 2])
def test_cnn(settled: Settled, grid: int) -> None:
    def reference(x: Tensor, state: State) -> Tensor:
        for stage in range(3):
            if stage:
                h, w = x.shape[2] // 2, x.shape[3] // 2
                corners = [x[:, :, i : 2 * h : 2, j : 2 * w : 2] for i in (0, 1) for j in (0, 1)]
                x = torch.stack(corners).amax(0)
            x = reference_conv(x, state, f"stages.{stage}").relu()
        b, d, h, w = x.shape
        x = x.reshape(b, d, grid, h // grid, grid, w // grid).mean(dim=(3, 5)).reshape(b, -1)
        return reference_classifier(x, state)

    compare(settled(Cnn((3, 9, 9), 4, [5, 6, 7], grid=grid)), images(9), reference)


def test_cnn_with_larger_kernels(settled: Settled) -> None:
    def reference(x: Tensor, state: State) -> Tensor:
        x = reference_conv(x, state, "stages.0").relu()
        return reference_classifier(x.mean(dim=(2, 3)), state)

    compare(settled(Cnn((3, 6, 6), 4, [5], kernel=5)), images(6), reference)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_mlp(settled: Settled, batch_norm: bool) -> None:
    def reference(x: Tensor, state: State) -> Tensor:
        x = x.reshape(len(x), -1)
        for layer in range(2):
            x = x @ state[f"layers.{layer}.linear.weight"].T
            if batch_norm:
                x = reference_norm(x, state, f"layers.{layer}.norm")
            else:
                x = x + state[f"layers.{layer}.linear.bias"]
            x = x.clamp(min=0)
        return reference_classifier(x, state)

    compare(settled(Mlp((3, 4, 4), 5, [7, 6], batch_norm)), images(4), reference)


@pytest.mark.parametrize("projection", [True, False])
def test_resnet(settled: Settled, projection: bool) -> None:
    def reference(x: Tensor, state: State) -> Tensor:
        x = reference_conv(x, state, "stem").relu()
        for stage in range(3):
            for block in range(2):
                stride = 2 if stage and not block else 1
                name = f"stages.{stage}.{block}.residual"
                out = reference_conv(x, state, f"{name}.branch.0", stride).relu()
                out = reference_conv(out, state, f"{name}.branch.1")
                if projection and f"{name}.shortcut.conv.weight" in state:
                    x = reference_conv(x, state, f"{name}.shortcut", stride)
                else:
                    x = x[:, :, ::stride, ::stride]
                    missing = out.shape[1] - x.shape[1]
                    x = torch.cat([x, x.new_zeros(len(x), missing, *x.shape[2:])], dim=1)
                x = (x + out).relu()
        return reference_classifier(x.mean(dim=(2, 3)), state)

    compare(settled(ResNet((3, 9, 9), 4, 14, [4, 6, 8, 12], projection)), images(9), reference)


def test_wide_resnet(settled: Settled) -> None:
    def reference(x: Tensor, state: State) -> Tensor:
        def conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
            weight = state[f"{name}.weight"]
            return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

        x = conv(x, "stem")
        for stage in range(3):
            for block in range(2):
                stride = 2 if stage and not block else 1
                name = f"stages.{stage}.{block}"
                changes = f"{name}.activation.norm.weight" in state
                first = f"{name}.activation" if changes else f"{name}.residual.branch.activation1"
                before = reference_norm(x, state, f"{first}.norm").relu()
                out = conv(before, f"{name}.residual.branch.conv1", stride)
                out = reference_norm(out, state, f"{name}.residual.branch.activation2.norm").relu()
                out = conv(out, f"{name}.residual.branch.conv2")
                # The shortcut of a block that changes the shape starts after the activation.
                x = out + (conv(before, f"{name}.residual.shortcut", stride) if changes else x)
        x = reference_norm(x, state, "activation.norm").relu()
        return reference_classifier(x.mean(dim=(2, 3)), state)

    compare(settled(WideResNet((3, 8, 8), 4, 16, 1)), images(8), reference)
    compare(settled(WideResNet((3, 8, 8), 4, 16, 2, dropout=0.4)), images(8), reference)


def test_vgg(settled: Settled) -> None:
    widths = [[4, 5], [6], [7], [8, 9]]

    def reference(x: Tensor, state: State) -> Tensor:
        for stage, convolutions in enumerate(widths):
            pooled = stage in (1, 2)
            if pooled:
                x = F.max_pool2d(x, 2)
            for number in range(len(convolutions)):
                place = 3 * number + pooled
                name = f"stages.{stage}.{place}"
                x = F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)
                x = reference_norm(x, state, f"stages.{stage}.{place + 1}").relu()
        return reference_classifier(x.mean(dim=(2, 3)), state)

    compare(settled(Vgg((3, 9, 9), 4, widths)), images(9), reference)


def test_mobilenet(settled: Settled) -> None:
    blocks, strides = [1, 2, 3, 4, 3, 3, 1], [1, 1, 2, 2, 1, 2, 1]

    def reference(x: Tensor, state: State) -> Tensor:
        x = reference_conv(x, state, "stem", 2).relu()
        for stage in range(7):
            for block in range(blocks[stage]):
                stride = 1 if block else strides[stage]
                inside = f"stages.{stage}.{block}"
                residual = f"{inside}.branch.widen.conv.weight" in state
                inside += ".branch" if residual else ""
                out = reference_conv(x, state, f"{inside}.widen").relu()
                out = reference_conv(out, state, f"{inside}.depthwise", stride, True).relu()
                out = reference_conv(out, state, f"{inside}.narrow")
                # Every block that keeps the shape has a shortcut, by the paper's rule.
                x = out + x if stride == 1 and out.shape == x.shape else out
        x = reference_conv(x, state, "head").relu()
        return reference_classifier(x.mean(dim=(2, 3)), state)

    compare(settled(MobileNetV2((3, 32, 32), 4, 0.25, 3)), images(32), reference)


def test_shufflenet(settled: Settled) -> None:
    def reference(x: Tensor, state: State) -> Tensor:
        def branch(x: Tensor, name: str, stride: int) -> Tensor:
            x = reference_conv(x, state, f"{name}.mix1").relu()
            x = reference_conv(x, state, f"{name}.depthwise", stride, True)
            return reference_conv(x, state, f"{name}.mix2").relu()

        x = reference_conv(x, state, "stem").relu()
        for stage in range(2):
            name = f"stages.{stage}.0"
            left = reference_conv(x, state, f"{name}.shortcut.depthwise", 2, True)
            left = reference_conv(left, state, f"{name}.shortcut.mix").relu()
            right = branch(x, f"{name}.branch", 2)
            x = reference_shuffle(torch.cat([left, right], dim=1))
            for unit in range(1, [2, 3][stage]):
                half = x.shape[1] // 2
                changed = branch(x[:, half:], f"stages.{stage}.{unit}.branch", 1)
                x = reference_shuffle(torch.cat([x[:, :half], changed], dim=1))
        x = reference_conv(x, state, "head").relu()
        return reference_classifier(x.mean(dim=(2, 3)), state)

    network = ShuffleNetV2((3, 8, 8), 4, [6, 12], [1, 2], first=5, features=20)
    compare(settled(network), images(8), reference)
