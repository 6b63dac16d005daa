from __future__ import annotations

import pytest
import torch

from ensemble_kd.functional import standardise


def test_mean_and_deviation() -> None:
    z = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    got = standardise(5 * z - 3)
    torch.testing.assert_close(got.mean(-1), torch.zeros(4, dtype=torch.float64))
    torch.testing.assert_close(got.square().mean(-1), torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(got, standardise(z))


@pytest.mark.parametrize("constant", [0.0, 1e4 / 3, -7.1])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_equal_logits_are_zeros_without_gradient(constant: float, dtype: torch.dtype) -> None:
    """However the mean of many equal numbers is rounded."""
    z = torch.full((3, 1000), constant, dtype=dtype, requires_grad=True)
    got = standardise(z)
    assert got.dtype == torch.float32
    assert torch.equal(got, torch.zeros(3, 1000))
    assert torch.equal(torch.autograd.grad(got[:, 0].sum(), z)[0], torch.zeros_like(z))


def test_the_gradient_is_the_numerical_one() -> None:
    z = torch.randn(3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.autograd.gradcheck(standardise, z.requires_grad_())
