"""Figures with a range, and how they grow with the samples of a batch."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Span(NamedTuple):
    """A figure with a range: the median of what was measured, and its quartiles."""

    low: float
    middle: float
    high: float

    def plus(self, other: Span) -> Span:
        """Both together; they are taken to be low, or high, at the same time."""
        return Span(*(one + two for one, two in zip(self, other, strict=True)))

    def times(self, count: float) -> Span:
        """So often."""
        return Span(*(count * each for each in self))

    def atop(self, other: Span) -> Span:
        """The larger of both: for work that goes on side by side."""
        return Span(*(max(one, two) for one, two in zip(self, other, strict=True)))


NOTHING = Span(0.0, 0.0, 0.0)


def span(measured: Sequence[float]) -> Span:
    """Median and quartiles of some measurements, at least one."""
    if len(measured) == 1:
        return Span(*[measured[0]] * 3)
    return Span(*statistics.quantiles(measured, n=4, method="inclusive"))


class Line(NamedTuple):
    """What grows with the samples of a batch: ``fixed + each * samples``, neither below zero."""

    fixed: float = 0.0
    each: float = 0.0

    def at(self, samples: float) -> float:
        """For so many samples at a time."""
        return self.fixed + self.each * samples

    @classmethod
    def through(cls, small: tuple[int, float], large: tuple[int, float]) -> Line:
        """The line through two points, (samples, value), of different samples.

        Where noise would have one part below zero, that part is zero and the other one meets the
        larger point.
        """
        (few, low), (many, high) = small, large
        each = max(0.0, (high - low) / (many - few))
        fixed = high - each * many
        return cls(fixed, each) if fixed >= 0 else cls(0.0, high / many)


class Timing(NamedTuple):
    """What some work takes as a function of the samples of a batch, with a range.

    Attributes:
        middle: the median.
        low: the first quartile as a share of the median.
        high: the third quartile likewise.
    """

    middle: Line = Line()
    low: float = 1.0
    high: float = 1.0

    def at(self, samples: float) -> Span:
        """For so many samples at a time."""
        middle = self.middle.at(samples)
        return Span(self.low * middle, middle, self.high * middle)

    def times(self, count: float) -> Timing:
        """So often."""
        return self._replace(middle=Line(count * self.middle.fixed, count * self.middle.each))

    @classmethod
    def through(cls, measured: Mapping[int, Sequence[float]]) -> Timing:
        """From measurements with batches of one or two sizes, by size.

        Of a single size everything is taken to grow with the samples.
        """
        spans = {size: span(measured[size]) for size in sorted(measured)}
        small, large = min(spans), max(spans)
        found = [each for each in spans.values() if each.middle > 0]
        low = statistics.fmean(each.low / each.middle for each in found) if found else 1.0
        high = statistics.fmean(each.high / each.middle for each in found) if found else 1.0
        if small == large:
            return cls(Line(0.0, spans[large].middle / large), low, high)
        points = ((size, spans[size].middle) for size in (small, large))
        return cls(Line.through(*points), low, high)


NO_BYTES = Line()
AT_ONCE = Timing()
