"""Factors that change over a stage: functions of the fraction of it that is done.

One kind of schedule serves the weight of a term, a temperature and the learning rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

Schedule = Callable[[float], float]
"""From the fraction of the stage that is done, in [0, 1], to a factor."""


SMALLEST, LARGEST = 1e-18, 1e18
"""Between them, the square of a number is one that float32 can hold."""


class Constant:
    """Always the same.

    Args:
        value: the factor.
    """

    def __init__(self, value: float = 1.0) -> None:
        _check_finite("value", value)
        self.value = value

    def __call__(self, fraction: float) -> float:
        return self.value


class Linear:
    """A straight line, then its end.

    Args:
        start: factor at the beginning of the stage.
        end: factor at the end of the line.
        until: share of the stage after which the factor stays at ``end``, in (0, 1]: a warm-up.
    """

    def __init__(self, start: float, end: float, until: float = 1.0) -> None:
        _check_finite("start", start)
        _check_finite("end", end)
        if not 0 < until <= 1:
            raise ValueError(f"until must be in (0, 1], got {until}")
        self.start = start
        self.end = end
        self.until = until

    def __call__(self, fraction: float) -> float:
        done = min(fraction / self.until, 1.0)
        # Not start + (end - start) * done, which can miss the end by a rounding error.
        return self.start * (1 - done) + self.end * done


class Cosine:
    """A linear warm-up to one, then half a cosine down to ``end``.

    Source: Loshchilov and Hutter, SGDR (arXiv 1608.03983), equation 5 for one period.

    Args:
        warmup: share of the stage spent on the way up, in [0, 1).
        end: factor at the end.
    """

    def __init__(self, warmup: float = 0.0, end: float = 0.0) -> None:
        if not 0 <= warmup < 1:
            raise ValueError(f"warmup must be in [0, 1), got {warmup}")
        _check_finite("end", end)
        self.warmup = warmup
        self.end = end

    def __call__(self, fraction: float) -> float:
        if fraction < self.warmup:
            return fraction / self.warmup
        done = (fraction - self.warmup) / (1 - self.warmup)
        return self.end + (1 - self.end) * 0.5 * (1 + math.cos(math.pi * done))


class RampUp:
    """exp(-5 (1 - t)^2), from almost nothing to one, then one.

    Source: Laine and Aila, Temporal Ensembling (arXiv 1610.02242), section 3.1; used by the online
    methods for the weight of their distillation terms, there once per epoch, here at each step.

    Args:
        until: share of the stage after which the factor is one, in (0, 1].
    """

    def __init__(self, until: float = 80 / 300) -> None:
        if not 0 < until <= 1:
            raise ValueError(f"until must be in (0, 1], got {until}")
        self.until = until

    def __call__(self, fraction: float) -> float:
        return math.exp(-5 * (1 - min(fraction / self.until, 1.0)) ** 2)


class Step:
    """Multiplied by ``factor`` at each milestone.

    Args:
        milestones: shares of the stage, ascending, in (0, 1).
        factor: what each of them multiplies with.
    """

    def __init__(self, milestones: Sequence[float], factor: float = 0.1) -> None:
        if sorted(milestones) != list(milestones) or not all(0 < m < 1 for m in milestones):
            raise ValueError(f"milestones must ascend within (0, 1), got {list(milestones)}")
        _check_finite("factor", factor)
        if abs(factor) > LARGEST:
            raise ValueError(f"factor must be at most {LARGEST:g}, got {factor}")
        self.milestones = tuple(milestones)
        self.factor = factor

    def __call__(self, fraction: float) -> float:
        return self.factor ** sum(fraction >= milestone for milestone in self.milestones)


class Positive:
    """A number or a schedule that must stay positive and finite, such as a temperature.

    So must its square in float32, by which what is divided by a temperature is made up for.

    Args:
        value: the number, or the schedule that gives it.
        name: what it is called where it was given.

    Raises:
        ValueError: it is not a number or a schedule, or not positive and finite at the beginning or
            at the end of the stage. What happens between is checked when it is reached.
    """

    def __init__(self, value: float | Schedule, name: str) -> None:
        self.value = value
        self.name = name
        self(0.0)
        self(1.0)

    def __call__(self, fraction: float) -> float:
        value = self.value(fraction) if callable(self.value) else self.value
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (number and value > 0 and math.isfinite(value)):
            raise ValueError(f"{self.name} must be a positive finite number, got {value!r}")
        if not SMALLEST <= value <= LARGEST:
            raise ValueError(
                f"{self.name} must be between {SMALLEST:g} and {LARGEST:g}, got {value!r}"
            )
        return float(value)


def _check_finite(name: str, value: float) -> None:
    if not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value}")
