"""What DiSK cannot be made of."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ensemble_kd.objectives import Label, Soft, Term
from ensemble_kd.schedules import Linear
from ensemble_kd.strategies import DiSK
from ensemble_kd.weightings import Uniform


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"weight": -1.0}, "weight must be a finite number >= 0, got -1"),
        ({"top": 0}, "top must be >= 1, got 0"),
        ({"temperature": 0.0}, "temperature must be a positive finite number, got 0"),
        ({"student_temperature": -1.0}, "student_temperature must be a positive"),
        ({"hardest": math.inf}, "hardest must be a positive finite number, got inf"),
        ({"budget": 0.0}, "budget must be a positive finite number, got 0"),
        ({"penalty": Linear(1.0, -1.0)}, "penalty must be a positive finite number, got -1"),
        ({"terms": {}}, "terms must hold at least one term"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], words: str) -> None:
    given = {"terms": {"label": Term(Label()), "soft": Term(Soft())}, "classes": 4, **options}
    with pytest.raises(ValueError, match=words):
        DiSK(weighting=Uniform(), **given)
