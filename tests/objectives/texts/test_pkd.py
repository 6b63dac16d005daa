"""Patient KD: the directions of the states of first tokens."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from ensemble_kd.objectives import Pkd


def reference_first_tokens(own: list[Tensor], other: list[Tensor], sample: int) -> float:
    total = 0.0
    for s, t in zip(own, other, strict=True):
        mine, theirs = s[sample].tolist(), t[sample].tolist()
        pairs = zip(mine, theirs, strict=True)
        total += sum((a / math.hypot(*mine) - b / math.hypot(*theirs)) ** 2 for a, b in pairs)
    return total


@pytest.mark.parametrize("samples", [1, 4])
@pytest.mark.parametrize("width", [1, 6])
@pytest.mark.parametrize("layers", [1, 3])
def test_the_first_tokens_are_the_papers_equation(
    reading: Any, samples: int, width: int, layers: int
) -> None:
    case = reading.case([3] * samples, [width] * layers, [width] * layers)
    case.own = [feature[:, 0].detach() for feature in case.own]
    case.other = [feature[:, 0] for feature in case.other]
    expected = [reference_first_tokens(case.own, case.other, i) for i in range(samples)]
    assert case.values(case.matched(Pkd())).tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("own", "other", "message"),
    [
        ((3, 4), (3, 4), r"vectors \(d,\) of one width, taken with .first, got \(3, 4\) of the"),
        ((4,), (5,), r"vectors .* got \(4,\) .* and \(5,\)"),
    ],
)
def test_bad_input_is_one_line(own: tuple[int, ...], other: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        Pkd().between(torch.randn(2, *own), torch.randn(2, *other))
    assert "\n" not in str(refusal.value)
