from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from ensemble_kd.functional.targets import (
    best_combination,
    least_error_weights,
    min_logit,
    most_certain,
)

TARGET = torch.tensor([0, 3, 1, 2, 0, 1])


def logits(members: int, seed: int = 0, scale: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(members, 6, 4, generator=generator, dtype=torch.float64)


def reference_loss(row: list[float], label: int) -> float:
    """Cross-entropy of one sample."""
    top = max(row)
    return math.log(math.fsum(math.exp(z - top) for z in row)) + top - row[label]


def reference_best(z: Tensor, label: int) -> float:
    """The smallest cross-entropy of a convex combination of (m, c), by a general solver."""
    found = minimize(
        lambda a: reference_loss((torch.as_tensor(a) @ z).tolist(), label),
        np.full(len(z), 1 / len(z)),
        method="SLSQP",
        bounds=[(0, 1)] * len(z),
        constraints={"type": "eq", "fun": lambda a: a.sum() - 1},
        options={"ftol": 1e-12, "maxiter": 500},
    )
    return float(found.fun)


@pytest.mark.parametrize("members", [1, 2, 4])
def test_the_most_certain_network_is_chosen_for_each_sample(members: int) -> None:
    z = logits(members)
    got = most_certain(z, TARGET)
    for b, label in enumerate(TARGET.tolist()):
        best = min(range(members), key=lambda k: reference_loss(z[k, b].tolist(), label))
        assert torch.equal(got[b], z[best, b])


@pytest.mark.parametrize("members", [1, 2, 4])
def test_min_logit_is_the_definition(members: int) -> None:
    z = logits(members)
    got = min_logit(z, TARGET)
    for b, label in enumerate(TARGET.tolist()):
        for c in range(4):
            want = min(float(z[k, b, c] - z[k, b, label]) for k in range(members))
            assert got[b, c].item() == pytest.approx(want)
        assert got[b, label] == 0


def test_no_network_says_more_of_the_label_than_min_logit() -> None:
    z = logits(3)
    own = min(reference_loss(row.tolist(), y) for row, y in zip(z[:, 1], [3] * 3, strict=True))
    assert reference_loss(min_logit(z, TARGET)[1].tolist(), 3) <= own


@pytest.mark.parametrize("members", [2, 3, 5])
@pytest.mark.parametrize("scale", [0.1, 3.0, 100.0])
def test_the_best_combination_is_that_of_a_general_solver(members: int, scale: float) -> None:
    z = logits(members, members, scale)
    weights = best_combination(z, TARGET)
    assert weights.shape == (members, 6)
    assert (weights > 0).all()
    torch.testing.assert_close(weights.sum(dim=0), torch.ones(6, dtype=torch.float64))
    for b, label in enumerate(TARGET.tolist()):
        got = reference_loss((weights[:, b] @ z[:, b]).tolist(), label)
        assert got <= reference_best(z[:, b], label) + 1e-5 * max(scale, 1)
        assert got <= min(reference_loss(row.tolist(), label) for row in z[:, b]) + 1e-5 * scale


def test_a_network_that_is_better_everywhere_is_all_of_the_combination() -> None:
    z = torch.tensor([[[5.0, 0.0, 0.0]], [[0.0, 1.0, 1.0]]])
    weights = best_combination(z, torch.tensor([0]))
    assert weights.flatten().tolist() == pytest.approx([1.0, 0.0], abs=1e-4)


def test_errors_that_complement_each_other_are_combined() -> None:
    """Each of two networks fears another wrong class: by symmetry both count the same."""
    z = torch.tensor([[[0.0, 4.0, -4.0]], [[0.0, -4.0, 4.0]]])
    weights = best_combination(z, torch.tensor([0]))
    assert weights.flatten().tolist() == pytest.approx([0.5, 0.5], abs=1e-6)


def test_identical_networks_share_alike() -> None:
    z = logits(1).expand(3, 6, 4)
    torch.testing.assert_close(
        best_combination(z, TARGET), torch.full((3, 6), 1 / 3, dtype=torch.float64)
    )
    same = least_error_weights(torch.full((3, 3), 0.2))
    torch.testing.assert_close(same, torch.full((3,), 1 / 3, dtype=torch.float64))


def test_saturated_logits_stay_finite() -> None:
    z = torch.stack([torch.eye(6, 4), -torch.eye(6, 4), torch.eye(6, 4).flip(0)]) * 2e4 - 1e4
    weights = best_combination(z, TARGET)
    assert weights.isfinite().all()
    torch.testing.assert_close(weights.sum(dim=0), torch.ones(6, dtype=torch.float64))
    assert most_certain(z, TARGET).isfinite().all()
    assert min_logit(z, TARGET).isfinite().all()


def test_no_samples_have_no_targets() -> None:
    nothing, nobody = torch.zeros(2, 0, 4), torch.zeros(0, dtype=torch.long)
    assert best_combination(nothing, nobody).shape == (2, 0)
    assert most_certain(nothing, nobody).shape == (0, 4)
    assert min_logit(nothing, nobody).shape == (0, 4)


@pytest.mark.parametrize("members", [1, 2, 4])
def test_least_error_weights_are_those_of_the_inverse(members: int) -> None:
    missed = np.random.default_rng(members).normal(size=(members, 50))
    c = missed @ missed.T / 50
    inverse = np.linalg.inv(c)
    want = inverse.sum(axis=1) / inverse.sum()
    assert least_error_weights(torch.from_numpy(c)).tolist() == pytest.approx(want, rel=1e-4)


def test_no_errors_are_shared_alike() -> None:
    assert least_error_weights(torch.zeros(4, 4)).tolist() == [0.25] * 4
