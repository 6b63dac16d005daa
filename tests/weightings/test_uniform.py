from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from ensemble_kd.weightings import Uniform


@pytest.mark.parametrize("members", [1, 3, 7])
def test_all_count_alike(situation: Callable[..., Any], members: int) -> None:
    weights = Uniform()(*situation(members=members, shape=(2, 3)))
    torch.testing.assert_close(
        weights, torch.full((members, 2, 3), 1 / members, dtype=torch.float64), check_dtype=True
    )
