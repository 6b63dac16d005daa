"""The space that is searched: the axes of a command line, in Hydra's grammar of sweeps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import (
    ChoiceSweep,
    IntervalSweep,
    Override,
    RangeSweep,
)

from ensemble_kd.errors import UserError
from ensemble_kd.variants import parse, values

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

LOG = "log"
"""The one tag that means something here: values are drawn evenly by their logarithm."""


@dataclass(frozen=True)
class Axis:
    """One key of the configuration and the values that it may take.

    Attributes:
        key: as on the command line, with a ``+`` where there was one.
        distribution: what Optuna draws from: texts of choices, or numbers.
        grid: the numbers of a range; empty for an interval and for choices.
    """

    key: str
    distribution: BaseDistribution
    grid: tuple[float, ...] = ()

    def override(self, drawn: Any) -> str:
        """The override that sets a value.

        Args:
            drawn: from ``distribution``. A step in binary fractions lands beside the number of the
                range that is meant, and the nearest is taken.
        """
        if self.grid:
            drawn = min(self.grid, key=lambda number: abs(number - drawn))
        return f"{self.key}={drawn}"

    def probes(self) -> list[str]:
        """Overrides that show whether the values are possible: each choice, or both ends."""
        from optuna.distributions import CategoricalDistribution

        if isinstance(self.distribution, CategoricalDistribution):
            return [self.override(choice) for choice in self.distribution.choices]
        ends = vars(self.distribution)
        return list(dict.fromkeys([self.override(ends["low"]), self.override(ends["high"])]))


@dataclass(frozen=True)
class Space:
    """What a command line searches.

    Attributes:
        entries: its overrides in their order, those with several values as axes.
        lines: the overrides as they were typed.
    """

    entries: tuple[str | Axis, ...]
    lines: tuple[str, ...]

    @property
    def axes(self) -> list[Axis]:
        return [entry for entry in self.entries if isinstance(entry, Axis)]

    @property
    def fixed(self) -> list[str]:
        return [entry for entry in self.entries if not isinstance(entry, Axis)]

    def overrides(self, drawn: Mapping[str, Any]) -> list[str]:
        """The command line of a trial.

        Args:
            drawn: a value for the key of each axis.
        """
        return [
            entry.override(drawn[entry.key]) if isinstance(entry, Axis) else entry
            for entry in self.entries
        ]

    def probes(self) -> list[list[str]]:
        """For each override of the command line those that are tried beforehand."""
        return [entry.probes() if isinstance(entry, Axis) else [entry] for entry in self.entries]


def read_space(overrides: Sequence[str], extra_dirs: Sequence[Path] = ()) -> Space:
    """Tell the axes of a command line from what is fixed.

    Args:
        overrides: ``key=value``, ``key=a,b``, ``key=range(1,9)``, ``key=interval(1,8)``,
            ``key=tag(log, interval(1e-4,1e-1))``, ``group=glob(*)`` and so on.
        extra_dirs: folders with the user's own groups.

    Raises:
        UserError: the first override that a search cannot use, or there is no axis.
    """
    parsed = parse(overrides, extra_dirs)
    entries: list[str | Axis] = []
    for override in parsed:
        _expect_searchable(override)
        swept = override.is_sweep_override()
        entries.append(_axis(override, extra_dirs) if swept else str(override.input_line))
    space = Space(tuple(entries), tuple(str(override.input_line) for override in parsed))
    keys = [override.get_key_element().lstrip("+~") for override in parsed]
    for axis in space.axes:
        if keys.count(axis.key.lstrip("+")) > 1:
            raise UserError(f"{axis.key}: expected it once, got it twice")
    if not space.axes:
        raise UserError(
            "expected something to search, such as 'objective.temperature=interval(1,8)' or "
            "weighting=uniform,entropy; every override has one value"
        )
    return space


def _expect_searchable(override: Override) -> None:
    key = override.key_or_group
    if override.is_hydra_override():
        raise UserError(f"{key}: a search is not run by Hydra; --folder says where it lies")
    if key == "sweep":
        raise UserError("sweep: a ready-made sweep is for python -m ensemble_kd, not for a search")
    if override.is_sweep_override() and key.rpartition(".")[2] == "seed":
        raise UserError(
            f"{key}: expected one value, got {override.input_line}: a search would only find the "
            "luckiest seed; it ends with the command that tries its winner with six others"
        )


def _axis(override: Override, extra_dirs: Sequence[Path]) -> Axis:
    from optuna.distributions import CategoricalDistribution

    value = override.value()
    key = override.get_key_element()
    tags = sorted(getattr(value, "tags", ()))
    numeric = isinstance(value, IntervalSweep | RangeSweep)
    if tags and not (tags == [LOG] and numeric):
        raise UserError(
            f"{override.input_line}: expected no tag but log, which an interval or a range may have"
        )
    if isinstance(value, IntervalSweep):
        return _interval(key, value, str(override.input_line))
    if isinstance(value, RangeSweep):
        return _range(key, value, str(override.input_line))
    if isinstance(value, ChoiceSweep):
        value.shuffle = False  # the order means nothing, and must not change between two starts
    texts = [line.partition("=")[2] for line in values(override, extra_dirs)]
    return Axis(key, CategoricalDistribution(tuple(dict.fromkeys(texts))))


def _interval(key: str, interval: IntervalSweep, line: str) -> Axis:
    from optuna.distributions import FloatDistribution, IntDistribution

    low, high, log = interval.start, interval.end, LOG in interval.tags
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        raise UserError(f"{line}: expected two finite ends")
    _expect_ends(low, high, log, line)
    if isinstance(low, int) and isinstance(high, int):
        return Axis(key, IntDistribution(low, high, log=log))
    return Axis(key, FloatDistribution(low, high, log=log))


def _range(key: str, swept: RangeSweep, line: str) -> Axis:
    from optuna.distributions import FloatDistribution, IntDistribution

    numbers = sorted(set(swept.range())) if swept.step else []
    if not numbers:
        raise UserError(f"{line}: expected a range with numbers in it, got an empty one")
    low, high, step, log = numbers[0], numbers[-1], abs(swept.step), LOG in swept.tags
    _expect_ends(low, high, log, line)
    if log and not (isinstance(step, int) and step == 1):
        raise UserError(f"{line}: expected a range of whole numbers in steps of 1 to go with log")
    if all(isinstance(number, int) for number in numbers):
        return Axis(key, IntDistribution(int(low), int(high), log=log, step=int(step)))
    return Axis(key, FloatDistribution(low, high, step=step), tuple(numbers))


def _expect_ends(low: float, high: float, log: bool, line: str) -> None:
    if low > high:
        raise UserError(f"{line}: expected the lower end first")
    if log and low <= 0:
        raise UserError(f"{line}: expected numbers above 0 to go with log")
