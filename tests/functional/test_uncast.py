from __future__ import annotations

import pytest
import torch

from ensemble_kd.functional import uncast, widened
from ensemble_kd.types import Output


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_halves_become_single_precision_and_nothing_else_changes(dtype: torch.dtype) -> None:
    double = torch.full((2, 3), 0.1, dtype=torch.float64)
    groups = torch.tensor([[0, 1, 1], [0, 1, 1]])
    said = widened(Output(double.to(dtype), {"a": double.to(dtype), "b": double}, groups))
    assert said.logits.dtype == said.features["a"].dtype == torch.float32
    assert torch.equal(said.logits, double.to(dtype).float())
    assert said.features["b"] is double
    assert said.groups is groups
    assert widened(Output(double)).logits is double


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_products_are_single_inside_and_half_again_behind(dtype: torch.dtype) -> None:
    x = torch.full((2, 2), 300.0)
    with torch.autocast("cpu", dtype=dtype):
        with uncast(x):
            assert torch.equal(x @ x, torch.full((2, 2), 180_000.0))
        assert (x @ x).dtype == dtype
    with uncast(x):
        assert (x @ x).dtype == torch.float32
