"""The arithmetic of the comparison of methods."""

from __future__ import annotations

import importlib.util
import itertools
import statistics
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest

from ensemble_kd.groups import options
from ensemble_kd.paths import conf_dir

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "methods.py"


@pytest.fixture(scope="module")
def methods() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_methods", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def reference_p_value(differences: Sequence[float]) -> float:
    """Share of all sign flips whose mean is as far from zero as what was seen."""
    seen = abs(statistics.fmean(differences))
    flips = list(itertools.product((1, -1), repeat=len(differences)))
    far = 0
    for signs in flips:
        mean = statistics.fmean(s * d for s, d in zip(signs, differences, strict=True))
        far += abs(mean) >= seen - 1e-12
    return far / len(flips)


@pytest.mark.parametrize(
    "differences",
    [
        [0.01, 0.02, 0.015, 0.03, 0.01, 0.02],
        [0.01, -0.02, 0.015, 0.03, -0.01, 0.02],
        [-0.01, -0.02, -0.03, -0.01],
    ],
)
def test_paired_seeds_are_compared_exactly(methods: ModuleType, differences: list[float]) -> None:
    one = {seed: 0.5 + difference for seed, difference in enumerate(differences)}
    other = dict.fromkeys(range(len(differences) + 3), 0.5)  # seeds that only one has do not count
    found = methods.compare(one, other)
    assert found.mean == pytest.approx(100 * statistics.fmean(differences))
    assert found.p_value == pytest.approx(reference_p_value(differences), abs=1e-9)
    assert found.low < found.mean < found.high


def test_a_method_that_changes_nothing_is_no_finding(methods: ModuleType) -> None:
    same = dict.fromkeys(range(6), 0.7)
    assert methods.compare(same, same) == (0.0, 0.0, 0.0, 1.0)


def test_every_strategy_and_weighting_is_measured_or_excused(methods: ModuleType) -> None:
    groups = options([conf_dir()])
    measured = set(methods.methods())
    for name in groups["strategy"]:
        assert (f"strategy={name}" in measured) != (name in methods.ELSEWHERE)
    for name in groups["weighting"]:
        assert (f"weighting={name}" in measured) or name == "uniform"
