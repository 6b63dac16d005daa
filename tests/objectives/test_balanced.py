"""Teachers' features in units of their own spread."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from ensemble_kd.errors import UserError
from ensemble_kd.objectives import (
    Balanced,
    Comparison,
    Hint,
    JointComparison,
    Matched,
    Material,
    Passes,
    Studied,
    Vid,
)
from ensemble_kd.types import Batch, Output, Progress

Kind = Literal["variance", "phi_s"]
KINDS: list[Kind] = ["variance", "phi_s"]
START = Progress(0, 0, 0.0)
SIZES = [5, 1, 8, 3]
SHAPES: list[tuple[int, ...]] = [(6, 4, 3), (4, 2, 2), (7,), (1,), (5, 8)]


def features(shape: tuple[int, ...], scale: float = 1.0, seed: int = 0) -> list[Tensor]:
    """Batches of unlike sizes, with channels of unlike means and spreads."""
    generator = torch.Generator().manual_seed(seed)
    channels = shape[0] if len(shape) == 3 else shape[-1]
    spread = torch.logspace(-1, 1, channels, dtype=torch.float64)
    mean = torch.linspace(-20.0, 50.0, channels, dtype=torch.float64)
    batches = []
    for size in SIZES:
        x = torch.randn(size, *shape, generator=generator, dtype=torch.float64).movedim(1, -1)
        if len(shape) != 3:
            x = x.movedim(-1, 1)
        mixed = scale * (mean + spread * (x + 0.5 * x.flip(-1)))
        batches.append(mixed.movedim(-1, 1) if len(shape) == 3 else mixed)
    return batches


def rows(batches: Sequence[Tensor]) -> npt.NDArray[np.float64]:
    """All samples and places, or tokens, as rows of channels."""
    whole = torch.cat(list(batches)).numpy()
    if whole.ndim == 4:
        whole = np.moveaxis(whole, 1, -1)
    flat: npt.NDArray[np.float64] = whole.reshape(-1, whole.shape[-1])
    return flat


def passing(*layers: Sequence[Tensor]) -> Passes:
    return lambda: zip(*layers, strict=True)


class Echo(nn.Module):
    """Keeps what it is shown."""

    def forward(self, students: Sequence[Tensor], teachers: Sequence[Tensor]) -> Tensor:
        self.shown = list(teachers)
        return students[0].flatten(1).sum(dim=1)


def studied(batches: Sequence[Tensor], kind: Kind) -> tuple[Balanced, list[Tensor]]:
    """What has studied, and the features as it shows them."""
    echo = Echo()
    balanced = Balanced(echo, [batches[0]], kind).double()
    balanced.study(passing(batches))
    shown = []
    for batch in batches:
        balanced([batch], [batch])
        shown.extend(echo.shown)
    return balanced, shown


@pytest.mark.parametrize("shape", SHAPES)
def test_each_channel_loses_its_mean_and_its_spread(shape: tuple[int, ...]) -> None:
    batches = features(shape)
    _, shown = studied(batches, "variance")
    assert [s.shape for s in shown] == [b.shape for b in batches]
    x = rows(batches)
    expected = (x - x.mean(axis=0)) / x.std(axis=0)
    assert rows(shown) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_phi_s_turns_the_cloud_and_scales_it_by_one_number(shape: tuple[int, ...]) -> None:
    batches = features(shape)
    _, shown = studied(batches, "phi_s")
    assert [s.shape for s in shown] == [b.shape for b in batches]
    x, y = rows(batches), rows(shown)
    assert y.mean(axis=0) == pytest.approx(np.zeros(x.shape[1]), abs=1e-12)
    assert y.var(axis=0) == pytest.approx(np.ones(x.shape[1]), rel=1e-11)
    centred = x - x.mean(axis=0)
    phi = math.sqrt(float(np.trace(np.atleast_2d(np.cov(x.T, bias=True)))) / x.shape[1])
    # All distances and angles are those of the feature, in another unit.
    assert y @ y.T == pytest.approx(centred @ centred.T / phi**2, abs=1e-10)


def test_a_hadamard_matrix_gives_each_dimension_an_equal_part_of_each_axis() -> None:
    batches = features((8,))
    balanced: Any = studied(batches, "phi_s")[0]
    _, axes = np.linalg.eigh(np.cov(rows(batches).T, bias=True))
    parts = balanced.units[0].rotation.numpy() @ axes
    assert np.abs(parts) == pytest.approx(np.full((8, 8), 1 / math.sqrt(8)), abs=1e-9)


def met(kind: Kind | None, comparison: Comparison | None = None, scale: float = 100.0) -> Any:
    """Two teachers, the second in other units, and what matches them."""
    batches = [features((6, 4, 3)), features((6, 4, 3), scale)]
    comparison = comparison or Hint()
    matched = Matched(comparison, ["a"], ["x"], balance=kind)
    student = Output(torch.zeros(5, 2), {"a": torch.randn(5, 3, 4, 3, dtype=torch.float64)})
    matched.meet(student, tuple(Output(torch.zeros(5, 2), {"x": b[0]}) for b in batches))
    matched.double()

    def material() -> Iterator[Batch]:
        return (
            Batch(torch.tensor(i), torch.zeros(s), torch.arange(s)) for i, s in enumerate(SIZES)
        )

    def said(number: int, batch: Batch) -> Output:
        feature = batches[number][int(batch.inputs)]
        return Output(torch.zeros(len(feature), 2), {"x": feature})

    matched.study(Material(material, said))
    return matched, batches


def contributions(matched: Matched, batches: Sequence[Sequence[Tensor]]) -> list[float]:
    """The mean over all samples of what each teacher adds, for a student that says zero."""
    for parameter in matched.parameters():
        nn.init.zeros_(parameter)
    means = []
    for teacher in range(2):
        weights = torch.zeros(2, 17, dtype=torch.float64)
        weights[teacher] = 1.0
        whole = [torch.cat(list(each)) for each in batches]
        student = Output(torch.zeros(17, 2), {"a": torch.zeros(17, 3, 4, 3, dtype=torch.float64)})
        voices = tuple(Output(torch.zeros(17, 2), {"x": feature}) for feature in whole)
        batch = Batch(torch.zeros(17), torch.zeros(17), torch.arange(17))
        means.append(matched(student, voices, weights, batch, START).mean().item())
    return means


@pytest.mark.parametrize("kind", KINDS)
def test_teachers_in_other_units_contribute_equally(kind: Kind) -> None:
    assert contributions(*met(kind)) == pytest.approx([1.0, 1.0])
    small, large = contributions(*met(None))
    assert large == pytest.approx(1e4 * small)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("comparison", [Hint(), Vid()])
def test_it_is_saved_and_restored(kind: Kind, comparison: Comparison) -> None:
    matched, batches = met(kind, comparison)
    fresh = Matched(comparison, ["a"], ["x"], balance=kind)
    student = Output(torch.zeros(5, 2), {"a": torch.randn(5, 3, 4, 3, dtype=torch.float64)})
    voices = tuple(Output(torch.zeros(5, 2), {"x": b[0]}) for b in batches)
    fresh.meet(student, voices)
    fresh.double().load_state_dict(matched.state_dict())
    weights = torch.full((2, 5), 0.5, dtype=torch.float64)
    batch = Batch(torch.zeros(5), torch.zeros(5), torch.arange(5))
    values = [each(student, voices, weights, batch, START) for each in (matched, fresh)]
    assert torch.equal(*values)
    values[0].sum().backward()
    assert all(p.grad is not None and (p.grad != 0).any() for p in matched.parameters())
    learned = {name for name, _ in matched.named_parameters()}
    assert not any("units" in name for name in learned)


def test_what_studies_inside_is_shown_standardised_features() -> None:
    class Curious(Studied):
        def study(self, passes: Passes) -> None:
            self.seen = [list(passes()) for _ in range(2)]

    class Jointly(JointComparison):
        def across(self, students: Sequence[Tensor], teachers: Sequence[Tensor]) -> nn.Module:
            return Curious()

    layers = [features((7,)), features((5, 8), 30.0)]
    matched: Any = Matched(Jointly(), ["a"], ["x", "y"], balance="variance")
    balanced = matched._compared([layers[0][0]], [layer[0] for layer in layers]).double()
    assert isinstance(balanced, Balanced)
    balanced.study(passing(*layers))
    inner: Any = balanced.comparison
    assert len(inner.seen) == 2
    for seen in inner.seen:
        for number in range(2):
            x = rows([batch[number] for batch in seen])
            assert x.mean(axis=0) == pytest.approx(np.zeros(x.shape[1]), abs=1e-12)
            assert x.std(axis=0) == pytest.approx(np.ones(x.shape[1]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [0.0, 0.1, -1e4])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_constant_channels_become_zeros(kind: Kind, value: float, dtype: torch.dtype) -> None:
    constant = [torch.full((size, 3, 2, 2), value, dtype=dtype) for size in SIZES]
    echo = Echo()
    balanced = Balanced(echo, [constant[0]], kind)
    balanced.study(passing(constant))
    later = torch.full((2, 3, 2, 2), value + 5.0, dtype=dtype)
    balanced([later], [later])
    assert echo.shown[0].dtype == torch.float32
    assert (echo.shown[0] == 0).all()
    mixed = [c.clone() for c in constant]
    for number, batch in enumerate(mixed):
        batch[:, 1] = number
    balanced.study(passing(mixed))
    balanced([later], [mixed[0]])
    assert echo.shown[0].isfinite().all()
    assert (echo.shown[0].abs() < 10).all()
    assert (echo.shown[0] != 0).any()


def test_before_it_has_studied_it_changes_nothing_and_teachers_get_no_gradient() -> None:
    echo = Echo()
    feature = torch.randn(3, 4, 2, 2, requires_grad=True)
    for kind in KINDS:
        Balanced(echo, [feature], kind)([feature], [feature])
        assert torch.equal(echo.shown[0], feature)
        assert not echo.shown[0].requires_grad


def test_features_that_are_not_finite_are_refused() -> None:
    spoilt = [torch.randn(3, 4), torch.tensor([[1.0, math.inf, 0.0, 0.0]])]
    for kind in KINDS:
        with pytest.raises(UserError, match="expected finite features of a teacher"):
            Balanced(Echo(), [spoilt[0]], kind).study(passing(spoilt))


def test_an_unknown_balance() -> None:
    kind: Any = "whitening"
    with pytest.raises(ValueError, match="balance must be null, variance or phi_s, got 'whiten"):
        Matched(Hint(), ["a"], ["a"], balance=kind)


@pytest.mark.parametrize("kind", KINDS)
def test_rounding_is_no_spread(kind: Kind) -> None:
    batches = [torch.full((size, 3), 1e4) for size in SIZES]
    batches[2][0] = torch.nextafter(batches[2][0], torch.tensor(2e4))
    echo = Echo()
    balanced = Balanced(echo, [batches[0]], kind)
    balanced.study(passing(batches))
    balanced([batches[2]], [batches[2]])
    assert (echo.shown[0] == 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_is_standardised_in_single(kind: Kind) -> None:
    batches = [batch.float() for batch in features((6, 4, 3))]
    echo = Echo()
    balanced = Balanced(echo, [batches[0]], kind)
    balanced.study(passing(batches))
    balanced([batches[0]], [batches[0]])
    plain = echo.shown[0]
    balanced([batches[0]], [batches[0].half()])
    assert echo.shown[0].dtype == torch.float32
    assert torch.allclose(echo.shown[0], plain, atol=0.1)
