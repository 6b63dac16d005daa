"""A verdict in words: what was seen and, where nothing could be called, what would settle it."""

from __future__ import annotations

from typing import NamedTuple

from ensemble_kd.statistics.comparison import Comparison
from ensemble_kd.statistics.seeds import MOST, seeds_to_call, seeds_to_show, smallest_p
from ensemble_kd.statistics.verdict import ALPHA, ENOUGH, Verdict


class Scale(NamedTuple):
    """How a metric is written.

    Attributes:
        unit: behind a number, such as ``points of accuracy``.
        factor: by which values are multiplied: 100 for points.
        digits: behind the point.
    """

    unit: str
    factor: float = 1.0
    digits: int = 1

    def signed(self, value: float) -> str:
        """A number with its sign, without the unit."""
        return f"{self.factor * value:+.{self.digits}f}"

    def plain(self, value: float) -> str:
        """A number with as many digits as it has, and the unit."""
        return f"{self.factor * value:.6g} {self.unit}"


def sentence(
    found: Comparison,
    verdict: Verdict,
    p: float,
    p_below: float,
    settings: int,
    reference: str,
    scale: Scale,
) -> str:
    """One sentence on a setting.

    Args:
        found: the comparison.
        verdict: what ``called`` made of it.
        p: two-sided, corrected.
        p_below: one-sided, corrected.
        settings: of the family.
        reference: against which.
        scale: of the metric.
    """
    if found.n < ENOUGH:
        return (
            f"significance is not called with fewer than {ENOUGH} seeds, got {found.n}: "
            f"run {_needed(settings)}"
        )
    side = "over" if found.mean > 0 else "against"
    gain = f"{scale.signed(found.mean)} {scale.unit} {side} {reference} on {found.n} seeds"
    family = f" after correction for {settings} settings" if settings > 1 else ""
    margin = scale.plain(found.margin)
    if verdict == "HELPS":
        less = f", though by less than {margin}" if p_below <= ALPHA else ""
        return f"{gain} ({_p(p)}{family}){less}"
    if verdict == "DOES NOT HELP":
        if found.mean < 0 and p <= ALPHA:
            return f"it hurts: {gain} ({_p(p)}{family})"
        return f"{gain}; a gain of {margin} is ruled out ({_p(p_below)}{family})"
    if smallest_p(found.n, settings) > ALPHA:
        return (
            f"{gain}, but with {found.n} seeds none of {settings} settings can be shown to help: "
            f"run {_needed(settings)}"
        )
    return (
        f"{gain} may be chance ({_p(p)}{family}) and a gain of {margin} is not ruled out "
        f"({_p(p_below)}): {_more(found, settings, margin)}"
    )


def _needed(settings: int) -> str:
    enough = seeds_to_call(settings)
    compared = f", as {settings} settings are compared" if enough > ENOUGH else ""
    return f"{enough} seeds or more{compared}"


def _more(found: Comparison, settings: int, margin: str) -> str:
    """What a sweep would need that could tell a gain of the margin from none."""
    seeds = seeds_to_show(found.margin, found.std or 0.0, settings)
    if seeds is None:
        return f"with such a spread it takes more than {MOST} seeds to show a gain of {margin}"
    if seeds <= found.n:
        return "more seeds would tell"
    return f"with such a spread about {seeds} seeds show a gain of {margin}, four times out of five"


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"
