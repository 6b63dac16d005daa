from __future__ import annotations

import math

import pytest
import torch

from ensemble_kd.objectives import Label
from ensemble_kd.types import UNLABELLED, Batch, Output, Progress

PROGRESS = Progress(0, 0, 0.0)
NOBODY = torch.empty(0, 3)


def batch(target: list[int]) -> Batch:
    labels = torch.tensor(target)
    return Batch(None, labels, torch.arange(len(target)), labels != UNLABELLED)


def reference_label(logits: list[float], label: int, smoothing: float) -> float:
    """(1 - e) on the label, e / c on each class."""
    log_total = math.log(math.fsum(math.exp(z) for z in logits))
    targets = [smoothing / len(logits) for _ in logits]
    targets[label] += 1 - smoothing
    return math.fsum(t * (log_total - z) for t, z in zip(targets, logits, strict=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_it_is_the_cross_entropy(smoothing: float) -> None:
    logits = [[0.3, -2.0, 1.5, 0.0], [4.0, 0.0, -1.0, 2.0], [0.0, 0.0, 0.0, 0.0]]
    said = Output(torch.tensor(logits, dtype=torch.float64))
    got = Label(smoothing)(said, (), NOBODY, batch([2, 1, 3]), PROGRESS)
    want = [reference_label(z, y, smoothing) for z, y in zip(logits, [2, 1, 3], strict=True)]
    assert got.tolist() == pytest.approx(want, rel=1e-12)


def test_unlabelled_samples_are_zero_and_do_not_crash() -> None:
    logits = torch.randn(3, 4, requires_grad=True)
    values = Label()(Output(logits), (), NOBODY, batch([UNLABELLED] * 3), PROGRESS)
    assert torch.equal(values, torch.zeros(3))
    (gradient,) = torch.autograd.grad(values.sum(), logits)
    assert torch.equal(gradient, torch.zeros(3, 4))


def test_half_precision_is_computed_in_single_precision() -> None:
    logits = torch.randn(3, 4).bfloat16()
    values = Label()(Output(logits), (), NOBODY, batch([0, 1, 2]), PROGRESS)
    assert torch.equal(
        values, Label()(Output(logits.float()), (), NOBODY, batch([0, 1, 2]), PROGRESS)
    )


def test_what_it_needs() -> None:
    assert Label.needs_labels
    assert not Label.needs_teachers


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, math.nan])
def test_smoothing_out_of_range_is_refused(smoothing: float) -> None:
    with pytest.raises(ValueError, match=r"smoothing must be in \[0, 1\), got"):
        Label(smoothing)
