"""Verdicts and their sentences, setting by setting."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest

from ensemble_kd.statistics import (
    Judged,
    Scale,
    bootstrap_interval,
    called,
    compare,
    compare_each,
    effect_size,
    judge,
    seeds_to_call,
    seeds_to_show,
    sign_flip,
)
from ensemble_kd.statistics.seeds import smallest_p

POINTS = Scale("points", 100.0, 1)
MARGIN = 0.005
CLEAR = [0.012, 0.015, 0.011, 0.018, 0.014, 0.016, 0.013, 0.012]
FAINT = [0.001, 0.002, 0.0015, 0.001, 0.0005, 0.002, 0.001, 0.0015]
NOTHING = [0.001, -0.002, 0.0015, -0.001, 0.0005, 0.002, -0.001, -0.0015]
UNSURE = [0.03, -0.02, 0.025, -0.01, 0.02, -0.015, 0.01, 0.005]


def judged(gains: dict[str, list[float]], margin: float = MARGIN) -> dict[str, Judged]:
    return judge(compare_each(gains, margin), "control/no_teacher", POINTS)


def only(gains: list[float], margin: float = MARGIN) -> Judged:
    return judged({"setting": gains}, margin)["setting"]


def test_a_comparison_holds_all_its_parts() -> None:
    found = compare(UNSURE, MARGIN)
    assert found.n == 8
    assert found.mean == pytest.approx(statistics.fmean(UNSURE))
    assert found.std == pytest.approx(statistics.stdev(UNSURE))
    assert (found.low, found.high) == bootstrap_interval(UNSURE)
    assert found.p == float(sign_flip(UNSURE))
    assert found.p_below == float(sign_flip(np.array(UNSURE) - MARGIN, "less"))
    assert found.exact
    assert found.effect_size == effect_size(UNSURE)
    assert not compare([*UNSURE, *UNSURE], MARGIN).exact


def test_a_single_seed_has_no_spread() -> None:
    found = compare([0.02], MARGIN)
    assert (found.std, found.low, found.high, found.effect_size) == (None, None, None, None)
    assert found.p == 1.0


@pytest.mark.parametrize("gains", [[], [math.nan, 1.0], [math.inf], [[1.0]]])
def test_only_finite_gains_are_compared(gains: list[float]) -> None:
    with pytest.raises(ValueError, match="gains: expected one finite number or more"):
        compare(gains, MARGIN)


@pytest.mark.parametrize("margin", [0.0, -1.0, math.nan, math.inf])
def test_a_margin_is_above_zero(margin: float) -> None:
    with pytest.raises(ValueError, match="margin: expected a number above 0"):
        compare(CLEAR, margin)


@pytest.mark.parametrize(
    ("n", "mean", "p", "p_below", "verdict"),
    [
        (6, 0.1, 0.05, 1.0, "HELPS"),
        (6, 0.1, 0.0501, 1.0, "INCONCLUSIVE"),
        (6, -0.1, 0.05, 1.0, "DOES NOT HELP"),
        (6, -0.1, 0.0501, 0.06, "INCONCLUSIVE"),
        (6, 0.1, 0.2, 0.05, "DOES NOT HELP"),
        (6, 0.1, 0.05, 0.05, "HELPS"),  # certain, though below the margin
        (5, 0.1, 0.01, 1.0, "INCONCLUSIVE"),
        (5, 0.1, 0.2, 0.01, "INCONCLUSIVE"),
    ],
)
def test_the_rule(n: int, mean: float, p: float, p_below: float, verdict: str) -> None:
    assert called(n, mean, p, p_below) == verdict


def test_helps() -> None:
    found = only(CLEAR)
    assert found.verdict == "HELPS"
    assert found.sentence == "+1.4 points over control/no_teacher on 8 seeds (p = 0.008)"


def test_helps_by_less_than_the_margin() -> None:
    found = only(FAINT)
    assert found.verdict == "HELPS"
    assert found.sentence.endswith("(p = 0.008), though by less than 0.5 points")


def test_hurts() -> None:
    found = only([-gain for gain in CLEAR])
    assert found.verdict == "DOES NOT HELP"
    assert (
        found.sentence == "it hurts: -1.4 points against control/no_teacher on 8 seeds (p = 0.008)"
    )


def test_a_gain_worth_having_is_ruled_out() -> None:
    found = only(NOTHING)
    assert found.verdict == "DOES NOT HELP"
    assert found.sentence == (
        "-0.0 points against control/no_teacher on 8 seeds; a gain of 0.5 points is ruled out "
        "(p = 0.004)"
    )
    assert only(NOTHING, margin=0.0005).verdict == "INCONCLUSIVE"
    assert only([0.0] * 6).verdict == "DOES NOT HELP"  # the very same student


def test_few_seeds_call_nothing() -> None:
    found = only(CLEAR[:5])
    assert found.verdict == "INCONCLUSIVE"
    assert found.sentence == (
        "significance is not called with fewer than 6 seeds, got 5: run 6 seeds or more"
    )
    many = judged({str(k): CLEAR[:5] for k in range(4)})["0"]
    assert many.sentence.endswith("got 5: run 8 seeds or more, as 4 settings are compared")


def test_six_seeds_are_too_few_for_several_settings() -> None:
    found = judged({"a": CLEAR[:6], "b": CLEAR[:6], "c": UNSURE[:6]})
    assert [each.verdict for each in found.values()] == ["INCONCLUSIVE"] * 3
    assert found["a"].settings == 3
    assert found["a"].p_holm == pytest.approx(3 * 2 / 64)
    assert found["a"].sentence == (
        "+1.4 points over control/no_teacher on 6 seeds, but with 6 seeds none of 3 settings can "
        "be shown to help: run 7 seeds or more, as 3 settings are compared"
    )
    assert judged({"a": CLEAR[:7], "b": CLEAR[:7], "c": UNSURE[:7]})["a"].verdict == "HELPS"


def test_what_is_unclear_says_how_many_seeds_would_tell() -> None:
    found = only(UNSURE)
    assert found.verdict == "INCONCLUSIVE"
    spread = statistics.stdev(UNSURE)
    assert seeds_to_show(MARGIN, spread, 1) is None
    assert found.sentence.endswith(
        "with such a spread it takes more than 100 seeds to show a gain of 0.5 points"
    )
    seeds = seeds_to_show(0.02, spread, 1)
    assert seeds is not None
    assert seeds > 8
    assert only(UNSURE, margin=0.02).sentence == (
        f"+0.6 points over control/no_teacher on 8 seeds may be chance (p = "
        f"{float(sign_flip(UNSURE)):.3f}) and a gain of 2 points is not ruled out (p = "
        f"{found_below(UNSURE, 0.02):.3f}): with such a spread about {seeds} seeds show a gain of "
        "2 points, four times out of five"
    )


def found_below(gains: list[float], margin: float) -> float:
    return float(sign_flip(np.array(gains) - margin, "less"))


def test_settings_are_corrected_together() -> None:
    gains = {"clear": CLEAR, "nothing": NOTHING, "few": CLEAR[:3]}
    found = judged(gains)
    assert list(found) == list(gains)
    assert found["clear"].p_holm == pytest.approx(3 * 2 / 2**8)
    assert found["clear"].sentence.endswith("(p = 0.023 after correction for 3 settings)")
    assert found["nothing"].p_below_holm == pytest.approx(3 * float(found["nothing"].found.p_below))
    assert judge({}, "control/no_teacher", POINTS) == {}


@pytest.mark.parametrize("settings", range(1, 60))
def test_seeds_to_call_are_the_fewest_that_can(settings: int) -> None:
    seeds = seeds_to_call(settings)
    assert seeds >= 6
    assert smallest_p(seeds, settings) <= 0.05
    assert seeds == 6 or smallest_p(seeds - 1, settings) > 0.05


@pytest.mark.parametrize(("gain", "settings"), [(1.0, 1), (1.5, 1), (1.5, 3)])
def test_seeds_to_show_have_about_the_power_that_is_said(gain: float, settings: int) -> None:
    seeds = seeds_to_show(gain, 1.0, settings)
    assert seeds is not None
    draw = np.random.default_rng(seeds)

    def power(seeds: int) -> float:
        p_values = sign_flip(draw.normal(gain, size=(2000, seeds)))
        return float((p_values <= 0.05 / settings).mean())

    assert 0.74 < power(seeds) < 0.92
    assert power(seeds - 2) < 0.8


def test_a_small_gain_takes_more_seeds_than_anyone_has() -> None:
    assert seeds_to_show(0.01, 1.0, 1) is None
    assert seeds_to_show(1.0, 0.0, 1) == 6
