"""Paraphrasers, translators and the distance of their factors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ensemble_kd.errors import UserError
from ensemble_kd.objectives import Factor

Pair = Callable[..., tuple[Tensor, Tensor]]
EPOCHS = 100
SHAPES: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((4, 6, 6), (5, 6, 6)),
    ((4, 6, 6), (5, 3, 4)),
    ((4, 3, 3), (4, 7, 5)),
    ((5, 4), (5, 7)),
    ((4, 6, 6), (9,)),
    ((4,), (6,)),
]


def reference_layers(feature: Tensor, layers: nn.Sequential) -> Tensor:
    """Three layers with leaky ReLUs of slope 0.1; convolutions place by place."""
    for layer in list(layers)[::2]:
        weight, bias = (p.detach() for p in layer.parameters())
        if feature.ndim == 4:
            b, _, height, width = feature.shape
            said = torch.zeros(b, len(bias), height, width, dtype=feature.dtype)
            for y in range(height):
                for x in range(width):
                    for dy in (-1, 0, 1):
                        for dx in (-1, 0, 1):
                            if 0 <= y + dy < height and 0 <= x + dx < width:
                                value = feature[:, :, y + dy, x + dx]
                                said[:, :, y, x] += value @ weight[:, :, dy + 1, dx + 1].T
                    said[:, :, y, x] += bias
        else:
            said = feature @ weight.T + bias
        feature = torch.where(said > 0, said, 0.1 * said)
    return feature


def reference_distance(own: Tensor, other: Tensor, p: int) -> list[float]:
    """The p-norm of the difference of vectors of unit length, value by value."""
    values = []
    for s, t in zip(own.flatten(1).tolist(), other.flatten(1).tolist(), strict=True):
        size_s, size_t = (math.sqrt(sum(a * a for a in x)) for x in (s, t))
        apart = [abs(a / size_s - b / size_t) for a, b in zip(s, t, strict=True)]
        values.append(sum(a**p for a in apart) ** (1 / p))
    return values


@pytest.mark.parametrize(("own", "other"), SHAPES)
@pytest.mark.parametrize("b", [1, 5])
@pytest.mark.parametrize(("rate", "norm"), [(0.5, 1), (1.5, 2)])
def test_it_is_the_papers_equation(
    pair: Pair, b: int, own: tuple[int, ...], other: tuple[int, ...], rate: float, norm: int
) -> None:
    student, teacher = pair(b, own, other)
    module: Any = Factor(rate, norm).between(student, teacher).double()
    values = module(student, teacher)
    assert values.shape == (b,)
    seen = student.mean(dim=(2, 3)) if student.ndim > teacher.ndim else student
    said = reference_layers(seen, module.translator)
    wanted = reference_layers(teacher, module.paraphraser)
    channels = teacher.shape[1] if teacher.ndim == 4 else teacher.shape[-1]
    assert wanted.shape[1 if teacher.ndim == 4 else -1] == round(rate * channels)
    if said.shape != wanted.shape:
        said = nn.functional.interpolate(said, wanted.shape[2:], mode="bilinear")
    assert values.tolist() == pytest.approx(reference_distance(said, wanted, norm), rel=1e-10)


def test_a_factor_has_a_channel_at_least() -> None:
    module: Any = Factor(rate=0.01).between(torch.zeros(2, 3), torch.zeros(2, 7))
    assert module.paraphraser(torch.zeros(2, 7)).shape == (2, 1)


def few(kind: str, b: int = 32) -> list[Tensor]:
    """Features that lie in fewer dimensions than they have, in two batches."""
    generator = torch.Generator().manual_seed(1)
    hidden = torch.rand(2 * b, 3, 3, 2, generator=generator)
    mixing = torch.rand(2, 6, generator=generator)
    feature = (hidden @ mixing).movedim(-1, 1)
    return list((feature if kind == "maps" else feature[:, :, 0, 0]).split(b))


def study(module: Any, batches: list[Tensor], seed: int) -> None:
    """A study under ``no_grad``, as nothing says that it must not be."""
    torch.manual_seed(seed)
    with torch.no_grad():
        module.study(lambda: ((batch,) for batch in batches))


@pytest.mark.parametrize("kind", ["maps", "vectors"])
def test_the_paraphraser_learns_to_keep_what_the_teacher_says(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[float] = []
    mean_squared = nn.functional.mse_loss

    def watched(said: Tensor, wanted: Tensor) -> Tensor:
        assert any(torch.equal(wanted, batch) for batch in batches)
        error = mean_squared(said, wanted)
        errors.append(float(error.detach()))
        return error

    monkeypatch.setattr(nn.functional, "mse_loss", watched)
    batches = few(kind)
    torch.manual_seed(0)
    module: Any = Factor(0.5, epochs=EPOCHS, learning_rate=0.01).between(batches[0], batches[0])
    before = {name: value.clone() for name, value in module.state_dict().items()}
    study(module, batches, seed=0)
    assert len(errors) == 2 * EPOCHS
    rows = torch.cat(batches).movedim(1, -1).flatten(0, -2)
    assert errors[-1] < 0.6 * float(rows.var(dim=0).mean())  # more than their mean is kept
    after = module.state_dict()
    for name, value in after.items():
        assert torch.equal(value, before[name]) is name.startswith("translator"), name
    assert all(p.grad is None for p in module.parameters())
    frozen = {name for name, p in module.named_parameters() if not p.requires_grad}
    assert frozen == {name for name in after if name.startswith("paraphraser")}


def test_studies_from_one_seed_are_the_same_and_are_restored() -> None:
    batches = few("maps")

    def studied(seed: int) -> Any:
        torch.manual_seed(0)
        module: Any = Factor(epochs=2).between(batches[0], batches[0])
        study(module, batches, seed)
        return module

    first, second, other = studied(1), studied(1), studied(2)
    state = first.state_dict()
    assert all(torch.equal(state[name], value) for name, value in second.state_dict().items())
    assert any(not torch.equal(state[name], value) for name, value in other.state_dict().items())
    other.load_state_dict(state)
    assert torch.equal(other(*batches), first(*batches))


def test_the_translator_alone_learns_afterwards() -> None:
    student, teacher = few("maps")
    student.requires_grad_()
    teacher.requires_grad_()
    module: Any = Factor(epochs=1).between(student, teacher)
    module.study(lambda: iter([(teacher.detach(),)]))
    module(student, teacher).sum().backward()
    assert student.grad is not None
    assert teacher.grad is None
    assert all((p.grad != 0).any() for p in module.translator.parameters())
    assert all(p.grad is None for p in module.paraphraser.parameters())
    module.double()
    small = student.detach()[:2].double()
    others = teacher.detach()[:2].double()
    assert torch.autograd.gradcheck(lambda x: module(x, others), small.requires_grad_())


@pytest.mark.parametrize("norm", [1, 2])
@pytest.mark.parametrize("b", [1, 3])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_values_and_gradients_stay_finite(
    pair: Pair, norm: int, b: int, scale: float, dtype: torch.dtype
) -> None:
    student, teacher = (scale * x.to(dtype) for x in pair(b, (4, 3, 3), (5, 3, 3)))
    module = Factor(norm=norm).between(student, teacher)
    for parameter in module.parameters():  # factors of zero, where there is no direction
        parameter.data.mul_(scale > 0)
    student.requires_grad_()
    values = module(student, teacher)
    assert values.dtype == torch.float32
    assert values.shape == (b,)
    assert values.isfinite().all()
    values.sum().backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    halves = [module(*x) for x in zip(student.split(1), teacher.split(1), strict=True)]
    assert torch.allclose(torch.cat(halves), values, rtol=1e-4)


def test_a_paraphraser_that_diverged_is_reported() -> None:
    module: Any = Factor(epochs=1).between(torch.zeros(3, 2), torch.zeros(3, 4))

    def passes() -> Iterator[tuple[Tensor, ...]]:
        return iter([(torch.full((3, 4), math.inf),)])

    with pytest.raises(UserError, match="choose a smaller learning_rate"):
        module.study(passes)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"rate": 0.0}, "rate must be a finite number > 0, got 0.0"),
        ({"rate": math.inf}, "rate must be a finite number > 0, got inf"),
        ({"learning_rate": -1.0}, "learning_rate must be a finite number > 0, got -1.0"),
        ({"norm": 3}, "norm must be 1 or 2, got 3"),
        ({"epochs": 0}, "epochs must be >= 1, got 0"),
    ],
)
def test_arguments_out_of_range(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Factor(**arguments)


@pytest.mark.parametrize(
    ("own", "other"), [((4,), (5, 3, 3)), ((5, 4), (6, 4)), ((4, 6, 6), (5, 4))]
)
def test_features_of_unlike_kinds_are_refused(
    pair: Pair, own: tuple[int, ...], other: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="features must be maps"):
        Factor().between(*pair(2, own, other))
