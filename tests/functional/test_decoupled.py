from __future__ import annotations

import math

import pytest
import torch

from ensemble_kd.functional import decoupled_of_logs, kl, log_probabilities


def reference_parts(t: list[float], p: list[float], label: int) -> tuple[float, float]:
    """KL of (label, not label), and of the other classes renormalised among themselves."""

    def divergence(a: list[float], b: list[float]) -> float:
        return math.fsum(x * math.log(x / y) for x, y in zip(a, b, strict=True))

    others = [c for c in range(len(t)) if c != label]
    pair = divergence([t[label], 1 - t[label]], [p[label], 1 - p[label]])
    within = [[x[c] / math.fsum(x[o] for o in others) for c in others] for x in (t, p)]
    return pair, divergence(*within)


@pytest.mark.parametrize("members", [(), (1,), (3,)])
@pytest.mark.parametrize("shape", [(5,), (2, 3)])
@pytest.mark.parametrize("classes", [2, 3, 6])
def test_it_is_the_definition(
    members: tuple[int, ...], shape: tuple[int, ...], classes: int
) -> None:
    generator = torch.Generator().manual_seed(classes)
    t = torch.randn(*members, *shape, classes, generator=generator, dtype=torch.float64)
    p = torch.randn(*shape, classes, generator=generator, dtype=torch.float64)
    label = torch.randint(classes, shape, generator=generator)
    tckd, nckd = decoupled_of_logs(t.log_softmax(-1), p.log_softmax(-1), label)
    assert tckd.shape == nckd.shape == (*members, *shape)
    rows = zip(
        t.softmax(-1).flatten(0, -2).tolist(),
        p.softmax(-1).expand_as(t).flatten(0, -2).tolist(),
        label.expand(*members, *shape).flatten().tolist(),
        tckd.flatten().tolist(),
        nckd.flatten().tolist(),
        strict=True,
    )
    for one, other, place, pair, others in rows:
        want = reference_parts(one, other, place)
        assert (pair, others) == pytest.approx(want, rel=1e-9, abs=1e-12)


def test_the_parts_make_the_divergence() -> None:
    generator = torch.Generator().manual_seed(0)
    t, p = torch.randn(2, 8, 5, generator=generator, dtype=torch.float64)
    label = torch.randint(5, (8,), generator=generator)
    log_t = log_probabilities(t)
    tckd, nckd = decoupled_of_logs(log_t, log_probabilities(p), label)
    rest = 1 - log_t.exp().gather(-1, label.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(tckd + rest * nckd, kl(t, p))


def test_two_classes_have_no_others() -> None:
    t, p = torch.randn(2, 8, 2, dtype=torch.float64)
    tckd, nckd = decoupled_of_logs(log_probabilities(t), log_probabilities(p), torch.arange(8) % 2)
    torch.testing.assert_close(tckd, kl(t, p))
    assert torch.equal(nckd, torch.zeros_like(nckd))


@pytest.mark.parametrize(
    ("label", "want"),
    [(0, (2e4 - math.log(2), math.log(2))), (1, (2e4, 1e4 - math.log(2))), (2, (0.0, 2e4))],
)
def test_saturated_values(label: int, want: tuple[float, float]) -> None:
    """By hand, where one minus a probability is zero in floating point and its log infinite."""
    t = torch.tensor([[-1e4, 1e4, -1e4]])
    p = torch.tensor([[1e4, -1e4, -1e4]], requires_grad=True)
    parts = decoupled_of_logs(log_probabilities(t), log_probabilities(p), torch.tensor([label]))
    assert tuple(part.item() for part in parts) == pytest.approx(want, rel=1e-6)
    (gradient,) = torch.autograd.grad(torch.cat(parts).sum(), p)
    assert gradient.isfinite().all()
