"""What Hydra's grammar of sweeps means: the values of an override, one command line for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException

from ensemble_kd.command_line import explain
from ensemble_kd.config import option_names
from ensemble_kd.errors import UserError
from ensemble_kd.paths import conf_dir


def parse(overrides: Sequence[str], extra_dirs: Sequence[Path] = ()) -> list[Override]:
    """Overrides as Hydra reads them.

    Args:
        overrides: ``group=option`` and ``key=value``, as on the command line.
        extra_dirs: folders with the user's own groups.

    Raises:
        UserError: one of them does not follow the grammar.
    """
    try:
        return OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as failure:
        raise UserError(explain(failure, extra_dirs)) from failure


def variants(axes: Sequence[Sequence[str]]) -> Iterator[list[str]]:
    """Command lines in which each value of each axis occurs, with as few of them as possible.

    Args:
        axes: overrides to choose one of, for each axis; none of them may be empty.

    Yields:
        All axes at their first value, then each through its others.
    """
    base = [values[0] for values in axes]
    yield base
    for number, values in enumerate(axes):
        for value in values[1:]:
            yield [*base[:number], value, *base[number + 1 :]]


def values(override: Override, extra_dirs: Sequence[Path] = ()) -> list[str]:
    """An override as overrides of a single value each, in the order in which they are written.

    Args:
        override: from ``parse``.
        extra_dirs: folders with the user's own groups, for ``glob``.

    Returns:
        One override, or those of a sweep; none for an interval, which is drawn from.

    Raises:
        UserError: no option of a group matches.
    """
    if not override.is_sweep_override():
        return [str(override.input_line)]
    key = override.get_key_element()
    value = override.value()
    if isinstance(value, Glob):
        names = value.filter(option_names(override.key_or_group, [*extra_dirs, conf_dir()]))
        if not names:
            raise UserError(f"{override.input_line}: no option of the group matches")
        return [f"{key}={name}" for name in names]
    if not override.is_discrete_sweep():
        return []
    return [f"{key}={text}" for text in override.sweep_string_iterator()]
