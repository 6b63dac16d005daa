"""The arithmetic of the comparison of methods."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Sequence
from types import ModuleType

import pytest

from ensemble_kd.config import compose
from ensemble_kd.groups import options
from ensemble_kd.paths import conf_dir

Script = Callable[[str], ModuleType]


@pytest.fixture
def methods(script: Script) -> ModuleType:
    return script("benchmarks/methods.py")


@pytest.fixture
def paired(script: Script) -> ModuleType:
    return script("benchmarks/paired.py")


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
def test_paired_seeds_are_compared_exactly(paired: ModuleType, differences: list[float]) -> None:
    one = {seed: 0.5 + difference for seed, difference in enumerate(differences)}
    other = dict.fromkeys(range(len(differences) + 3), 0.5)  # seeds that only one has do not count
    found = paired.compare(one, other)
    assert found.mean == pytest.approx(100 * statistics.fmean(differences))
    assert found.p_value == pytest.approx(reference_p_value(differences), abs=1e-9)
    assert found.low < found.mean < found.high


def test_a_method_that_changes_nothing_is_no_finding(paired: ModuleType) -> None:
    same = dict.fromkeys(range(6), 0.7)
    assert paired.compare(same, same) == (0.0, 0.0, 0.0, 1.0)


def test_every_strategy_and_weighting_is_measured_or_excused(methods: ModuleType) -> None:
    groups = options([conf_dir()])
    measured = set(methods.study().settings)
    for name in groups["strategy"]:
        assert (f"strategy={name}" in measured) != (name in methods.ELSEWHERE)
    for name in groups["weighting"]:
        assert (f"weighting={name}" in measured) or name == "uniform"


def test_every_objective_is_measured_with_one_and_three_teachers_or_excused(
    script: Script,
) -> None:
    objectives = script("benchmarks/objectives.py")
    settings = objectives.whole_study().settings
    for name in options([conf_dir()])["objective"]:
        for count in ("1 teacher", "3 teachers"):
            assert (f"{name}, {count}" in settings) != (name in objectives.ELSEWHERE)


@pytest.mark.parametrize("name", ["methods", "objectives", "label_spaces"])
def test_every_setting_can_be_planned(name: str, script: Script) -> None:
    """Its keys are those that exist; the data is another one, which is always there."""
    module = script(f"benchmarks/{name}.py")
    study = module.whole_study() if name == "objectives" else module.study()
    for overrides in study.settings.values():
        compose([*(each for each in overrides if not each.startswith("data."))])
