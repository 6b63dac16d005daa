"""From values to places on a picture, and the round values that are written beside an axis."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """An axis.

    Attributes:
        low: value at ``start``.
        high: value at ``end``, larger than ``low``.
        start: place, in pixels.
        end: place, in pixels.
        log: whether equal steps are equal factors; then ``low`` > 0.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The place of a value."""
        low, high, value = (
            (math.log(each) for each in (self.low, self.high, value))
            if self.log
            else (self.low, self.high, value)
        )
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, most: int) -> list[float]:
        """Round values within the scale, about ``most`` of them at most."""
        return self._factors(most) if self.log else self._steps(most)

    def _steps(self, most: int) -> list[float]:
        rough = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(size * power for size in (1, 2, 5, 10, 20) if size * power >= rough * 0.999)
        # Counted and not added up, so that errors of rounding do not add up either.
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        digits = max(0, 1 - math.floor(math.log10(step)))
        return [round(number * step, digits) for number in range(first, last + 1)]

    def _factors(self, most: int) -> list[float]:
        lowest, highest = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        found: list[float] = []
        for digits in (range(1, 10), (1, 2, 5), (1, 3), (1,)):
            found = [
                digit * 10.0**power
                for power in range(lowest, highest + 1)
                for digit in digits
                if self.low <= digit * 10.0**power <= self.high
            ]
            if len(found) <= most:
                break
        return found[:: math.ceil(len(found) / most)] if found else []


def window(
    values: Iterable[float],
    room: float = 0.08,
    least: float = 0.0,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> tuple[float, float]:
    """Limits of an axis with some room around all values.

    Args:
        values: at least one.
        room: on each side, as a share of what they span.
        least: the limits are at least so far apart.
        bounds: which the limits keep to; they lie further apart than ``least``.
    """
    found = list(values)
    low, high = min(found), max(found)
    span = max((high - low) * (1 + 2 * room), least, 1e-9 * max(abs(low), abs(high)), 1e-12)
    low, high = (low + high - span) / 2, (low + high + span) / 2
    if low < bounds[0]:
        low, high = bounds[0], min(max(high, bounds[0] + span), bounds[1])
    if high > bounds[1]:
        low, high = max(min(low, bounds[1] - span), bounds[0]), bounds[1]
    return low, high


def log_window(values: Iterable[float], room: float = 0.12) -> tuple[float, float]:
    """The same for factors: values are > 0."""
    logs = [math.log(value) for value in values]
    low, high = window(logs, room, least=math.log(3))
    return math.exp(low), math.exp(high)
