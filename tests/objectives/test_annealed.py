from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ensemble_kd.objectives import Annealed, Label, Soft, Term
from ensemble_kd.schedules import Constant, Linear, RampUp
from ensemble_kd.types import UNLABELLED, Batch, Output, Progress

LABELS = torch.tensor([0, 2, 1, 4])
BATCH = Batch(None, LABELS, torch.arange(4))


def at(fraction: float) -> Progress:
    return Progress(0, 0, fraction)


def logits(members: int) -> Tensor:
    generator = torch.Generator().manual_seed(members)
    return 2 * torch.randn(members + 1, 4, 5, generator=generator, dtype=torch.float64)


def reference_bam(z: Tensor, taught: list[Tensor], weights: Tensor, share: float) -> list[float]:
    """Cross-entropy with r * onehot(y) + (1 - r) * p, sample by sample."""
    values = []
    for b, label in enumerate(LABELS.tolist()):
        target = torch.zeros(5, dtype=torch.float64)
        target[label] = share
        for w, t in zip(weights[:, b], taught, strict=True):
            target += (1 - share) * w * t[b].exp() / t[b].exp().sum()
        log_q = z[b] - z[b].exp().sum().log()
        values.append(-(target * log_q).sum().item())
    return values


@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("fraction", [0.0, 0.3, 1.0])
def test_it_is_the_cross_entropy_with_the_mixed_target(members: int, fraction: float) -> None:
    z, *taught = logits(members)
    weights = torch.rand(members, 4, dtype=torch.float64).softmax(0)
    got = Annealed()(Output(z), tuple(map(Output, taught)), weights, BATCH, at(fraction))
    assert got.tolist() == pytest.approx(reference_bam(z, taught, weights, fraction), rel=1e-12)


def test_the_share_can_have_another_schedule() -> None:
    z, *taught = logits(1)
    one = torch.ones(1, 4, dtype=torch.float64)
    got = Annealed(RampUp(0.5))(Output(z), tuple(map(Output, taught)), one, BATCH, at(0.25))
    share = RampUp(0.5)(0.25)
    assert got.tolist() == pytest.approx(reference_bam(z, taught, one, share), rel=1e-12)


def test_it_pulls_like_two_terms_with_opposite_schedules() -> None:
    z, *taught = logits(2)
    z.requires_grad_()
    said = (Output(z), tuple(map(Output, taught)), torch.full((2, 4), 0.5), BATCH, at(0.3))
    two = Term(Label(), schedule=Linear(0, 1))(*said)
    two = two + Term(Soft(1.0), schedule=Linear(1, 0))(*said)
    (one_way,) = torch.autograd.grad(Term(Annealed())(*said), z)
    (other_way,) = torch.autograd.grad(two, z)
    torch.testing.assert_close(one_way, other_way)


def test_an_unlabelled_sample_hears_the_teachers_only() -> None:
    z, t = logits(1)
    batch = Batch(None, torch.tensor([0, UNLABELLED, 1, 4]), torch.arange(4), LABELS != 2)
    one = torch.ones(1, 4)
    halfway = Annealed()(Output(z), (Output(t),), one, batch, at(0.5))
    soft = Annealed(Constant(0.0))(Output(z), (Output(t),), one, batch, at(0.5))
    assert halfway[1].item() == pytest.approx(0.5 * soft[1].item())
    end = Annealed()(Output(z), (Output(t),), one, batch, at(1.0))
    assert end[1].item() == 0.0
    assert end[0].item() > 0.0


@pytest.mark.parametrize("fraction", [0.0, 0.5, 1.0])
def test_saturated_logits_stay_finite(fraction: float) -> None:
    z = torch.eye(4, 5).mul(2e4).sub(1e4).requires_grad_()
    t = -z.detach()
    loss = Annealed()(Output(z), (Output(t),), torch.ones(1, 4), BATCH, at(fraction)).mean()
    (gradient,) = torch.autograd.grad(loss, z)
    assert loss.isfinite()
    assert gradient.isfinite().all()


def test_no_gradient_reaches_a_teacher() -> None:
    z, t = logits(1)
    t.requires_grad_()
    z.requires_grad_()
    Annealed()(Output(z), (Output(t),), torch.ones(1, 4), BATCH, at(0.2)).sum().backward()
    assert t.grad is None


@pytest.mark.parametrize("share", [Linear(0, 2), Linear(-1, 1), Constant(1.5)])
def test_a_share_out_of_range_is_refused(share: Linear | Constant) -> None:
    with pytest.raises(ValueError, match=r"share must be in \[0, 1\], got"):
        Annealed(share)


def test_no_teacher_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one teacher"):
        Annealed()(Output(logits(0)[0]), (), torch.ones(0, 4), BATCH, at(0.0))
