"""Holm's correction against the procedure, step by step."""

from __future__ import annotations

import numpy as np
import pytest

from ensemble_kd.statistics import holm


def rejected(p_values: list[float], level: float) -> list[bool]:
    """Holm (1979): from the smallest on, as long as p <= level / (k - i + 1)."""
    found = [False] * len(p_values)
    for step, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if p_values[place] > level / (len(p_values) - step):
            break
        found[place] = True
    return found


@pytest.mark.parametrize("settings", [1, 2, 5, 12])
def test_says_at_every_level_what_the_procedure_says(settings: int) -> None:
    draw = np.random.default_rng(settings)
    for _ in range(20):
        p_values = (draw.uniform(size=settings) ** 3).tolist()
        corrected = holm(p_values)
        for level in (0.001, 0.01, 0.05, 0.2, 0.9):
            assert (corrected <= level).tolist() == rejected(p_values, level)


def test_example_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.4, 0.9]).tolist() == [0.8, 0.9]
    assert holm([0.7, 0.9]).tolist() == [1.0, 1.0]
    assert holm([0.03]).tolist() == [0.03]


def test_families_lie_along_the_last_axis() -> None:
    p_values = np.random.default_rng(0).uniform(size=(3, 2, 4))
    found = holm(p_values)
    assert found.shape == p_values.shape
    for row, column in np.ndindex(3, 2):
        assert np.array_equal(found[row, column], holm(p_values[row, column]))
