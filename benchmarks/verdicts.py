"""How often a sweep's verdicts are wrong, and how often they see what is there.

``python benchmarks/verdicts.py`` makes up gains whose truth is known, has them judged by the very
functions that judge a sweep, and writes docs/verdicts.md; about a minute.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ensemble_kd.statistics import (
    Interval,
    bootstrap_interval,
    called,
    holm,
    seeds_to_call,
    seeds_to_show,
    sign_flip,
    t_interval,
)

PAGE = Path(__file__).resolve().parents[1] / "docs" / "verdicts.md"
SEEDS = (6, 8, 10)
SETTINGS = (1, 3, 10)
SWEEPS = 10_000
"""Settings that are made up for a cell: so many sweeps of one, a tenth as many of ten."""

GAINS = (0.5, 1.0, 1.5, 2.0)
TRUE = (-1.0, 0.0, 0.5, 1.0)
Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Correction = Callable[[npt.ArrayLike], Array]


def normal(draw: np.random.Generator, sweeps: int, settings: int, seeds: int) -> Array:
    """Gains that spread as a bell, (sweeps, settings, seeds), as in the next ones."""
    return draw.normal(size=(sweeps, settings, seeds))


def heavy(draw: np.random.Generator, sweeps: int, settings: int, seeds: int) -> Array:
    """Student's t with 2 degrees of freedom: single seeds lie far off, the variance is infinite."""
    return draw.standard_t(2, size=(sweeps, settings, seeds))


def shared(draw: np.random.Generator, sweeps: int, settings: int, seeds: int) -> Array:
    """Accuracies on 360 samples, where all settings of a sweep have the same controls."""
    students = draw.binomial(360, 0.9, size=(sweeps, settings, seeds))
    controls = draw.binomial(360, 0.9, size=(sweeps, 1, seeds))
    return (students - controls) / 3.6


NULLS = {
    "normal": normal,
    "heavy tails (t, 2 degrees of freedom)": heavy,
    "accuracies on 360 samples, shared control": shared,
}


def random(*what: object) -> np.random.Generator:
    """A generator for a cell of a table, the same each time."""
    return np.random.default_rng(zlib.crc32(repr(what).encode()))


def verdicts(gains: Array, margin: float | None = None, correct: Correction = holm) -> Array:
    """The verdicts on made-up sweeps.

    Args:
        gains: (sweeps, settings, seeds).
        margin: the smallest gain worth having; without one, no setting is held against it.
        correct: the correction for the settings of a sweep.

    Returns:
        (sweeps, settings) of 1 (HELPS), -1 (DOES NOT HELP) and 0 (INCONCLUSIVE).
    """
    p = correct(sign_flip(gains))
    below = np.ones_like(p) if margin is None else correct(sign_flip(gains - margin, "less"))
    seeds, means = gains.shape[-1], gains.mean(-1)
    said = [called(seeds, *found) for found in zip(means.flat, p.flat, below.flat, strict=True)]
    codes = {"HELPS": 1.0, "DOES NOT HELP": -1.0, "INCONCLUSIVE": 0.0}
    return np.array([codes[verdict] for verdict in said]).reshape(p.shape)


def false_helps(name: str, settings: int, seeds: int, correct: Correction = holm) -> Flags:
    """Whether any setting of a sweep is said to help though none does, (sweeps,)."""
    sweeps = SWEEPS // settings
    gains = NULLS[name](random("null", name, settings, seeds), sweeps, settings, seeds)
    return np.asarray((verdicts(gains, correct=correct) > 0).any(-1))


def power(gain: float, settings: int, seeds: int) -> Flags:
    """Whether the one setting that helps is said to, beside others that do not, (sweeps,)."""
    gains = normal(random("power", gain, settings, seeds), SWEEPS // settings, settings, seeds)
    gains[:, 0] += gain
    return verdicts(gains)[:, 0] > 0


def dismissed(gain: float, settings: int, seeds: int) -> Flags:
    """Which settings are said not to help, all of a sweep having the gain, (sweeps, settings)."""
    gains = normal(random("dismissed", gain, settings, seeds), SWEEPS // settings, settings, seeds)
    return verdicts(gains + gain, margin=1.0) < 0


def coverage(name: str, seeds: int) -> tuple[float, float]:
    """How often the 95% interval of the mean holds its true value: bootstrap, Student's t."""
    gains = NULLS[name](random("coverage", name, seeds), 1000, 1, seeds)[:, 0]
    return _held(gains, bootstrap_interval), _held(gains, t_interval)


def _held(gains: Array, make: Callable[[npt.ArrayLike], Interval | None]) -> float:
    found = [make(row) for row in gains]
    return float(np.mean([each is not None and each.low <= 0 <= each.high for each in found]))


def page() -> str:
    """The page."""
    lines = [
        "# How far the verdicts of a sweep are to be trusted",
        "",
        "Written by `python benchmarks/verdicts.py`: sweeps are made up, of which the truth is",
        "known, and judged by the functions that judge a sweep (`ensemble_kd.statistics`).",
        "",
        "- A gain is the student's figure minus its control's with the same seed.",
        "- HELPS: 6 seeds or more, a mean above 0, and p <= 0.05 in the two-sided sign-flip test",
        "  (exact up to 15 seeds), corrected by Holm for all settings of the sweep.",
        "- DOES NOT HELP: 6 seeds or more, and either the same test with a mean below 0, or p <=",
        "  0.05, corrected likewise, in the one-sided sign-flip test that the gain is below the",
        "  margin, the smallest gain worth having.",
        "- INCONCLUSIVE: everything else. With n seeds and k settings no corrected p is below",
        f"  k * 2 / 2^n, so that {_listed(SETTINGS)} settings need "
        f"{_listed(map(seeds_to_call, SETTINGS))} seeds.",
        f"- {SWEEPS:,} settings for each cell, the same each time: {SWEEPS:,} sweeps of one,",
        f"  {SWEEPS // 10:,} sweeps of ten. Shares of sweeps of ten are good to about 1 point.",
        "- The test takes gains to be independent and symmetric about 0 where teachers change",
        "  nothing: student and control could then be exchanged. Nothing is said of other data, of",
        "  another budget, or of a setting that was picked by its test figures and reported alone.",
        "- Splits that seeds draw from one data set overlap: a verdict is on this data set, not on",
        "  all like it (Nadeau and Bengio, Inference for the Generalization Error, 2003).",
        "- Seeds and settings are to be fixed beforehand: who looks after each seed and stops when",
        "  a verdict pleases makes more mistakes than these.",
        "",
        "## False HELPS",
        "",
        "Share of sweeps in which any setting is said to help, though none does. It must not be",
        "above 5%; it is about half of that, as the other half are settings said to hurt.",
        "",
        *_header("gains of seeds", "seeds", *_settings(), "10, uncorrected"),
        *(false_row(name, seeds) for name in NULLS for seeds in SEEDS),
        "",
        "## Power",
        "",
        "Share of sweeps in which the one setting that helps is said to; the others do nothing.",
        "Gains are normal, the true one is in standard deviations of gains over seeds.",
        "",
        *_header("true gain", "seeds", *_settings()),
        *(power_row(gain, seeds) for gain in GAINS for seeds in SEEDS),
        "",
        "Seeds that it takes to see a gain in four sweeps out of five, as the sentence of an",
        "INCONCLUSIVE setting reckons them (the approximation of the t-test):",
        "",
        *_header("true gain", *_settings()),
        *(seeds_row(gain) for gain in GAINS),
        "",
        "## DOES NOT HELP",
        "",
        "Share of settings that are said not to help, where the margin is one standard deviation",
        "of gains over seeds. In the last three rows the gain is the margin, so that this is a",
        "mistake: there it is the share of sweeps with any, which must not be above 5%.",
        "",
        *_header("true gain", "seeds", *_settings()),
        *(dismissed_row(gain, seeds) for gain in TRUE for seeds in SEEDS),
        "",
        "## Intervals",
        "",
        "How often a 95% interval of the mean gain holds the true one. The bootstrap interval",
        "(BCa) that reports show is too narrow with few seeds; verdicts do not depend on it.",
        "",
        *_header("gains of seeds", "seeds", "bootstrap", "Student's t"),
        *(coverage_row(name, seeds) for name in NULLS for seeds in SEEDS),
    ]
    return "\n".join(lines) + "\n"


def false_row(name: str, seeds: int) -> str:
    """How often any setting is falsely said to help."""
    shares = [false_helps(name, settings, seeds).mean() for settings in SETTINGS]
    uncorrected = false_helps(name, SETTINGS[-1], seeds, np.asarray).mean()
    return _row(name, str(seeds), *map(_percent, (*shares, uncorrected)))


def power_row(gain: float, seeds: int) -> str:
    """How often a gain is seen."""
    shares = [power(gain, settings, seeds).mean() for settings in SETTINGS]
    return _row(f"{gain:g}", str(seeds), *map(_percent, shares))


def seeds_row(gain: float) -> str:
    """How many seeds a gain takes."""
    return _row(f"{gain:g}", *(str(seeds_to_show(gain, 1.0, settings)) for settings in SETTINGS))


def dismissed_row(gain: float, seeds: int) -> str:
    """How often a setting is said not to help."""
    found = [dismissed(gain, settings, seeds) for settings in SETTINGS]
    shares = [(each.any(-1) if gain >= 1 else each).mean() for each in found]
    return _row(f"{gain:g}", str(seeds), *map(_percent, shares))


def coverage_row(name: str, seeds: int) -> str:
    """How often intervals hold the truth."""
    return _row(name, str(seeds), *map(_percent, coverage(name, seeds)))


def _listed(numbers: Iterable[int]) -> str:
    *first, last = map(str, numbers)
    return f"{', '.join(first)} and {last}"


def _settings() -> list[str]:
    return [f"{count} setting{'s' if count > 1 else ''}" for count in SETTINGS]


def _header(*columns: str) -> list[str]:
    return [_row(*columns), "|" + "---|" * len(columns)]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


if __name__ == "__main__":
    PAGE.write_text(page())
    print(PAGE.read_text())
