from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble_kd.schedules import Constant, Cosine, Linear, Positive, RampUp, Schedule, Step

PROPERTY = settings(deadline=None, derandomize=True, max_examples=60)
FRACTION = st.floats(0, 1)
NUMBER = st.floats(-1e6, 1e6)


@PROPERTY
@given(NUMBER, FRACTION)
def test_constant_is_constant(value: float, fraction: float) -> None:
    assert Constant(value)(fraction) == value


def test_constant_is_one_by_default() -> None:
    assert Constant()(0.3) == 1


@PROPERTY
@given(NUMBER, NUMBER, FRACTION)
def test_linear_is_a_line_that_meets_both_ends(start: float, end: float, fraction: float) -> None:
    line = Linear(start, end)
    assert line(0.0) == start
    assert line(1.0) == end
    assert line(fraction) == pytest.approx(start + (end - start) * fraction, rel=1e-9, abs=1e-6)


@pytest.mark.parametrize(
    ("fraction", "want"), [(0.0, 1.0), (0.1, 2.0), (0.2, 3.0), (0.25, 3.0), (1.0, 3.0)]
)
def test_a_line_can_end_before_the_stage_does(fraction: float, want: float) -> None:
    assert Linear(1.0, 3.0, until=0.2)(fraction) == pytest.approx(want)


@pytest.mark.parametrize(
    ("fraction", "want"), [(0.0, 0.0), (0.1, 0.5), (0.2, 1.0), (0.6, 0.6), (1.0, 0.2)]
)
def test_cosine_by_hand(fraction: float, want: float) -> None:
    """Up to one within a fifth, then through the middle of 1 and 0.2 half-way down."""
    assert Cosine(warmup=0.2, end=0.2)(fraction) == pytest.approx(want)


@PROPERTY
@given(FRACTION)
def test_cosine_without_warmup_is_half_a_cosine(fraction: float) -> None:
    want = (1 + math.cos(math.pi * fraction)) / 2
    assert Cosine()(fraction) == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize(
    ("fraction", "want"),
    [(0.0, math.exp(-5)), (0.25, math.exp(-5 / 4)), (0.5, 1.0), (0.75, 1.0), (1.0, 1.0)],
)
def test_ramp_up_by_hand(fraction: float, want: float) -> None:
    assert RampUp(until=0.5)(fraction) == pytest.approx(want)


@pytest.mark.parametrize("epoch", [0, 1, 20, 79, 80, 200, 299])
def test_ramp_up_has_the_values_of_the_online_methods(epoch: int) -> None:
    """exp(-5 (1 - e / 80)^2) for the first 80 of 300 epochs, then one."""
    want = math.exp(-5 * (1 - epoch / 80) ** 2) if epoch < 80 else 1.0
    assert RampUp()(epoch / 300) == pytest.approx(want)


@pytest.mark.parametrize(
    ("fraction", "want"),
    [(0.0, 1.0), (0.49, 1.0), (0.5, 0.1), (0.74, 0.1), (0.75, 0.01), (1, 0.01)],
)
def test_step_by_hand(fraction: float, want: float) -> None:
    assert Step([0.5, 0.75])(fraction) == pytest.approx(want)


def test_step_without_milestones_stays() -> None:
    assert Step([])(1.0) == 1


@PROPERTY
@given(FRACTION)
def test_a_number_stays_a_positive_number(fraction: float) -> None:
    assert Positive(4, "temperature")(fraction) == 4.0


def test_a_schedule_is_followed() -> None:
    temperature = Positive(Linear(5.0, 1.0), "temperature")
    assert [temperature(fraction) for fraction in (0.0, 0.5, 1.0)] == [5.0, 3.0, 1.0]


@pytest.mark.parametrize(
    "value",
    [0, 0.0, -1.0, math.inf, math.nan, True, Constant(0.0), Linear(1.0, 0.0), Linear(-1.0, 1.0)],
)
def test_what_is_not_positive_is_refused(value: float | Schedule) -> None:
    with pytest.raises(ValueError, match="temperature must be a positive finite number, got"):
        Positive(value, "temperature")


def test_what_is_not_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="temperature must be a positive finite number, got 'hot'"):
        Positive("hot", "temperature")  # type: ignore[arg-type]


def test_what_turns_negative_between_is_refused_when_it_is_reached() -> None:
    temperature = Positive(lambda fraction: (fraction - 0.5) ** 2 - 0.1, "temperature")
    assert temperature(0.0) > 0
    with pytest.raises(ValueError, match="temperature must be a positive finite number, got -0"):
        temperature(0.5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Constant(math.nan), "value must be a finite number, got nan"),
        (lambda: Linear(math.inf, 0.0), "start must be a finite number, got inf"),
        (lambda: Linear(0.0, math.nan), "end must be a finite number, got nan"),
        (lambda: Linear(0.0, 1.0, until=0.0), r"until must be in \(0, 1\], got 0.0"),
        (lambda: Linear(0.0, 1.0, until=1.1), r"until must be in \(0, 1\], got 1.1"),
        (lambda: Cosine(end=math.inf), "end must be a finite number, got inf"),
        (lambda: Cosine(warmup=1.0), r"warmup must be in \[0, 1\), got 1.0"),
        (lambda: Cosine(warmup=-0.1), r"warmup must be in \[0, 1\), got -0.1"),
        (lambda: RampUp(0.0), r"until must be in \(0, 1\], got 0.0"),
        (lambda: RampUp(1.1), r"until must be in \(0, 1\], got 1.1"),
        (lambda: Step([0.5, 0.4]), r"milestones must ascend within \(0, 1\), got \[0.5, 0.4\]"),
        (lambda: Step([0.5, 1.0]), r"milestones must ascend within \(0, 1\), got \[0.5, 1.0\]"),
        (lambda: Step([0.5], math.nan), "factor must be a finite number, got nan"),
    ],
)
def test_bad_arguments_are_refused(make: Callable[[], Schedule], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
