"""Distil several good models into one small one.

The public names are loaded when they are first used, so that importing the package, and with it
``--help``, costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ensemble_kd.version import __version__

if TYPE_CHECKING:
    from ensemble_kd.api import Result, distill, load
    from ensemble_kd.objectives.objective import Objective
    from ensemble_kd.objectives.term import Term
    from ensemble_kd.strategies.strategy import Strategy
    from ensemble_kd.types import Batch, Output, Progress, Turn
    from ensemble_kd.weightings.weighting import Weighting

__all__ = [
    "Batch",
    "Objective",
    "Output",
    "Progress",
    "Result",
    "Strategy",
    "Term",
    "Turn",
    "Weighting",
    "__version__",
    "distill",
    "load",
]

_HOMES = {
    "Batch": "ensemble_kd.types",
    "Objective": "ensemble_kd.objectives.objective",
    "Output": "ensemble_kd.types",
    "Progress": "ensemble_kd.types",
    "Result": "ensemble_kd.api",
    "Strategy": "ensemble_kd.strategies.strategy",
    "Term": "ensemble_kd.objectives.term",
    "Turn": "ensemble_kd.types",
    "Weighting": "ensemble_kd.weightings.weighting",
    "distill": "ensemble_kd.api",
    "load": "ensemble_kd.api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value  # the next use does not come here any more
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
