from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from ensemble_kd.objectives import Label, Soft, Term
from ensemble_kd.types import UNLABELLED, Batch, Output, Progress

FILE = Path(__file__).parents[2] / "conf" / "objective" / "label_smoothing.yaml"
PROGRESS = Progress(0, 0, 0.0)


def term(**changes: Any) -> Term:
    """The only term of the file, as it is composed."""
    root = OmegaConf.create({"objective": OmegaConf.load(FILE)})
    root.objective = OmegaConf.merge(root.objective, changes)
    terms = dict(instantiate(root.objective.terms))
    assert list(terms) == ["label"]
    built: Term = terms["label"]
    return built


def reference_smoothed(logits: list[float], label: int, smoothing: float) -> float:
    """Cross-entropy with (1 - e) [c = label] + e / c, class by class."""
    total = math.fsum(math.exp(z) for z in logits)
    value = 0.0
    for c, z in enumerate(logits):
        share = smoothing / len(logits) + (1 - smoothing) * (c == label)
        value -= share * math.log(math.exp(z) / total)
    return value


@pytest.mark.parametrize("shape", [(4,), (2, 3)])
@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4])
def test_it_is_the_smoothed_cross_entropy(
    shape: tuple[int, ...], classes: int, smoothing: float
) -> None:
    generator = torch.Generator().manual_seed(classes)
    logits = torch.randn(*shape, classes, generator=generator, dtype=torch.float64)
    target = torch.randint(classes, shape, generator=generator)
    batch = Batch(None, target, torch.arange(shape[0]))
    objective = term(smoothing=smoothing).objective
    got = objective(Output(logits), (), torch.empty(0, *shape), batch, PROGRESS)
    want = [
        reference_smoothed(z, y, smoothing)
        for z, y in zip(logits.flatten(0, -2).tolist(), target.flatten().tolist(), strict=True)
    ]
    assert got.shape == shape
    assert got.flatten().tolist() == pytest.approx(want)


def test_it_pulls_like_a_teacher_that_was_made_by_hand() -> None:
    """The soft target of a teacher that gives 1 - e + e / c to the label, e / c to the others."""
    generator = torch.Generator().manual_seed(0)
    own = torch.randn(3, 4, generator=generator, dtype=torch.float64).requires_grad_()
    target = torch.tensor([0, 3, 1])
    made = torch.full((3, 4), 0.1 / 4, dtype=torch.float64)
    made[torch.arange(3), target] += 0.9
    batch = Batch(None, target, torch.arange(3))
    one = torch.ones(1, 3, dtype=torch.float64)
    soft = Soft(1.0)(Output(own), (Output(made.log()),), one, batch, PROGRESS)
    smoothed = term().objective(Output(own), (), one[:0], batch, PROGRESS)
    torch.testing.assert_close(
        torch.autograd.grad(smoothed.sum(), own), torch.autograd.grad(soft.sum(), own)
    )


def test_it_asks_no_teacher_and_only_labelled_samples() -> None:
    objective = term().objective
    assert isinstance(objective, Label)
    assert objective.needs_labels
    assert not objective.needs_teachers
    logits = torch.zeros(2, 5)
    target = torch.tensor([1, UNLABELLED])
    batch = Batch(None, target, torch.arange(2), target != UNLABELLED)
    loss = term(label_weight=3.0)(Output(logits), (), torch.empty(0, 2), batch, PROGRESS)
    assert loss.item() == pytest.approx(3 * math.log(5))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("classes", [2, 3])
def test_saturated_logits_are_finite(dtype: torch.dtype, classes: int) -> None:
    own = torch.tensor([[1e4, -1e4, 0.0]], dtype=dtype)[:, :classes].requires_grad_()
    batch = Batch(None, torch.tensor([1]), torch.arange(1))
    values = term().objective(Output(own), (), torch.empty(0, 1), batch, PROGRESS)
    assert values.dtype == torch.float32
    assert values.isfinite().all()
    assert torch.autograd.grad(values.sum(), own)[0].isfinite().all()


def test_a_smoothing_out_of_range_is_refused() -> None:
    with pytest.raises(Exception, match=r"smoothing must be in \[0, 1\), got 1.0"):
        term(smoothing=1.0)
