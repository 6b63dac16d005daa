"""Which teachers an ensemble would not miss: one rule, wherever it is said."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ensemble_kd.report.roles import in_order

SURE = 2.0
"""Standard errors by which the accuracy must differ without a teacher."""

Differences = Mapping[str, Mapping[str, float | None]]
"""``leave_one_out`` and ``leave_one_out_error`` by teacher, as ``results.json`` has them."""


def spared(worth: Differences) -> str:
    """Which teachers the ensemble would not miss, and whom it would be better without.

    A teacher is missed where the accuracy is lower without it by more than two standard errors, and
    in the way where it is higher by as much. Without a standard error neither is called.

    Args:
        worth: of the validation split.

    Returns:
        A sentence or two; nothing where no difference is known.
    """
    differences: dict[str, float] = {}
    errors: dict[str, float] = {}
    for name in in_order(worth):
        difference, error = (worth[name][f"leave_one_out{end}"] for end in ("", "_error"))
        if difference is not None and not math.isnan(difference):
            differences[name] = difference
            errors[name] = math.inf if error is None or math.isnan(error) else error
    if not differences:
        return ""
    names = [name for name, its in differences.items() if its <= SURE * errors[name]]
    if not names:
        return "The ensemble would miss each of its teachers."
    listed = " or ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)
    said = (
        f"The ensemble would not miss {listed}{', each by itself' if names[1:] else ''}: without "
        "it the validation accuracy is not lower, or by less than two standard errors."
    )
    worst = min(names, key=lambda name: differences[name])
    if differences[worst] < -SURE * errors[worst]:
        more = -100 * differences[worst]
        said += f" Without {worst} it is {more:.1f} points higher: leave it out."
    return said
