from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ensemble_kd.functional import (
    cross_entropy,
    entropy,
    kl,
    kl_of_logs,
    log_probabilities,
    soft_cross_entropy,
    wide,
)
from ensemble_kd.types import UNLABELLED

PROPERTY = settings(deadline=None, derandomize=True, max_examples=60)
LOGITS = st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=6)
TEMPERATURE = st.floats(0.25, 20)


def reference_softmax(logits: list[float], temperature: float) -> list[float]:
    """softmax(logits / temperature), one number at a time."""
    highest = max(logits)
    powers = [math.exp((z - highest) / temperature) for z in logits]
    return [power / math.fsum(powers) for power in powers]


def reference_entropy(logits: list[float], temperature: float) -> float:
    """-sum p log p with 0 log 0 = 0."""
    p = reference_softmax(logits, temperature)
    return -math.fsum(x * math.log(x) for x in p if x > 0)


def reference_kl(target: list[float], logits: list[float], temperature: float) -> float:
    """sum t log(t / p), by the definition."""
    t = reference_softmax(target, temperature)
    p = reference_softmax(logits, temperature)
    return math.fsum(a * math.log(a / b) for a, b in zip(t, p, strict=True) if a > 0)


@PROPERTY
@given(LOGITS, TEMPERATURE)
def test_log_probabilities_are_the_definition(logits: list[float], temperature: float) -> None:
    got = log_probabilities(torch.tensor(logits, dtype=torch.float64), temperature)
    want = [math.log(p) for p in reference_softmax(logits, temperature)]
    torch.testing.assert_close(got, torch.tensor(want, dtype=torch.float64))


@PROPERTY
@given(LOGITS, TEMPERATURE)
def test_entropy_is_the_definition(logits: list[float], temperature: float) -> None:
    got = entropy(torch.tensor(logits, dtype=torch.float64), temperature)
    assert got.item() == pytest.approx(reference_entropy(logits, temperature), abs=1e-12)
    assert -1e-12 <= got.item() <= math.log(len(logits)) + 1e-12


@PROPERTY
@given(LOGITS, st.integers(0, 5), TEMPERATURE)
def test_kl_and_soft_cross_entropy_are_the_definition(
    target: list[float], turn: int, temperature: float
) -> None:
    turn %= len(target)
    own = [0.5 * z + 0.1 * i for i, z in enumerate(target[turn:] + target[:turn])]
    t, z = (torch.tensor(x, dtype=torch.float64) for x in (target, own))
    want = reference_kl(target, own, temperature)
    assert kl(t, z, temperature).item() == pytest.approx(want, rel=1e-9, abs=1e-12)
    crossed = want + reference_entropy(target, temperature)
    got = soft_cross_entropy(t, z, temperature).item()
    assert got == pytest.approx(crossed, rel=1e-9, abs=1e-12)


def test_kl_by_hand() -> None:
    """KL((1/2, 1/2) || (1/4, 3/4)) = log 2 - log(3) / 2."""
    got = kl(torch.zeros(2), torch.tensor([1.0, 3.0]).log())
    assert got.item() == pytest.approx(math.log(2) - math.log(3) / 2, rel=1e-6)


def test_kl_has_a_direction() -> None:
    t, z = torch.tensor([3.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0])
    assert abs(kl(t, z) - kl(z, t)) > 0.1


def test_kl_of_logs_takes_normalised_logs() -> None:
    t, z = torch.randn(5, 4), torch.randn(5, 4)
    assert torch.equal(kl_of_logs(log_probabilities(t), log_probabilities(z)), kl(t, z))


def test_kl_has_the_closed_gradient() -> None:
    """The gradient of T^2 KL with respect to the student's logits is T (p - t)."""
    generator = torch.Generator().manual_seed(0)
    t = torch.randn(6, 5, dtype=torch.float64, generator=generator)
    z = torch.randn(6, 5, dtype=torch.float64, generator=generator).requires_grad_()
    temperature = 3.0
    torch.autograd.backward((temperature**2 * kl(t, z, temperature)).sum())
    p, target = (z.detach() / temperature).softmax(-1), (t / temperature).softmax(-1)
    torch.testing.assert_close(z.grad, temperature * (p - target))


def test_both_arguments_receive_gradient() -> None:
    """Nothing is detached here: methods differ in that, and their callers decide."""
    t, z = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4, requires_grad=True)
    torch.autograd.backward(kl(t, z).sum())
    assert t.grad is not None
    assert t.grad.abs().sum() > 0
    assert z.grad is not None
    assert z.grad.abs().sum() > 0


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_by_hand(smoothing: float) -> None:
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 4.0, 1.0]], dtype=torch.float64)
    target = torch.tensor([2, 1])
    got = cross_entropy(logits, target, smoothing)
    for row, label, value in zip(logits.tolist(), target.tolist(), got.tolist(), strict=True):
        p = reference_softmax(row, 1.0)
        wanted = [smoothing / 3 + (1 - smoothing) * (c == label) for c in range(3)]
        want = -math.fsum(a * math.log(b) for a, b in zip(wanted, p, strict=True))
        assert value == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_of_an_unlabelled_sample_is_zero(smoothing: float) -> None:
    logits = torch.randn(2, 3, 4, requires_grad=True)
    target = torch.tensor([[0, UNLABELLED, 3], [UNLABELLED, 1, 2]])
    values = cross_entropy(logits, target, smoothing)
    assert values.shape == (2, 3)
    assert (values[target == UNLABELLED] == 0).all()
    torch.autograd.backward(values.sum())
    assert logits.grad is not None
    assert (logits.grad[target == UNLABELLED] == 0).all()
    assert (logits.grad[target != UNLABELLED].abs().sum(-1) > 0).all()


def _cross_entropy_with_class_one(target: Tensor, logits: Tensor, temperature: float) -> Tensor:
    return cross_entropy(logits, torch.ones(logits.shape[:-1], dtype=torch.long), 0.1)


def _entropy_of_the_second(target: Tensor, logits: Tensor, temperature: float) -> Tensor:
    return entropy(logits, temperature)


DIVERGENCES: list[Callable[[Tensor, Tensor, float], Tensor]] = [
    kl,
    soft_cross_entropy,
    _entropy_of_the_second,
    _cross_entropy_with_class_one,
]


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("temperature", [0.01, 1.0, 20.0])
def test_saturated_logits_give_finite_values_and_gradients(
    divergence: Callable[[Tensor, Tensor, float], Tensor], dtype: torch.dtype, temperature: float
) -> None:
    rows = [[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0], [1e4, 1e4, -1e4], [0.0, 0.0, 0.0]]
    pairs = [(a, b) for a in rows for b in rows]
    target = torch.tensor([a for a, _ in pairs], dtype=dtype, requires_grad=True)
    logits = torch.tensor([b for _, b in pairs], dtype=dtype, requires_grad=True)
    values = divergence(target, logits, temperature)
    assert values.isfinite().all()
    assert values.dtype == torch.promote_types(dtype, torch.float32)
    torch.autograd.backward(values.sum())
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad.dtype == dtype
    # What flows back into a target can be truly too large for half precision.
    assert target.grad is None or not target.grad.isnan().any()


def test_saturated_values() -> None:
    """Two opposite certainties are 2e4 apart; a certainty has no entropy."""
    high, low = torch.tensor([1e4, -1e4]), torch.tensor([-1e4, 1e4])
    assert kl(high, low).item() == 2e4
    assert kl(high, high).item() == 0
    assert entropy(high).item() == 0
    assert entropy(torch.zeros(2)).item() == pytest.approx(math.log(2))


def test_an_impossible_class_counts_for_nothing() -> None:
    """0 log 0 = 0, also where a logit is -inf for both."""
    t = torch.tensor([1.0, 2.0, -math.inf], requires_grad=True)
    z = torch.tensor([0.5, -1.0, -math.inf], requires_grad=True)
    value = kl(t, z) + entropy(z) + soft_cross_entropy(t, z)
    plain = kl(t[:2], z[:2]) + entropy(z[:2]) + soft_cross_entropy(t[:2], z[:2])
    assert value.item() == pytest.approx(plain.item(), rel=1e-6)
    torch.autograd.backward(value)
    assert z.grad is not None
    assert t.grad is not None
    assert z.grad.isfinite().all()
    assert t.grad.isfinite().all()


def test_half_precision_is_computed_in_single_precision() -> None:
    generator = torch.Generator().manual_seed(1)
    t, z = torch.randn(2, 64, 10, generator=generator).bfloat16()
    assert torch.equal(kl(t, z, 2.0), kl(t.float(), z.float(), 2.0))


def test_wide() -> None:
    assert wide(torch.zeros(1, dtype=torch.float16)).dtype == torch.float32
    assert wide(torch.zeros(1, dtype=torch.bfloat16)).dtype == torch.float32
    double = torch.zeros(1, dtype=torch.float64)
    assert wide(double) is double


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_a_temperature_must_be_positive_and_finite(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature must be a positive finite number, got"):
        log_probabilities(torch.zeros(2), temperature)
