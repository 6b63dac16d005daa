"""Packages that only some parts of this one need, and that need not be installed."""

from __future__ import annotations

import importlib
from types import ModuleType

from ensemble_kd.errors import UserError


def optional(module: str, extra: str, who: str) -> ModuleType:
    """Import a module of an optional package, when it is needed and not before.

    Args:
        module: its import path, such as ``transformers``.
        extra: of this project's extras, the one that installs it.
        who: needs it, for the message.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as missing:
        package = module.partition(".")[0]
        if missing.name is not None and missing.name.partition(".")[0] != package:
            raise
        raise UserError(
            f"{who} needs the package {package!r}: pip install ensemble-kd[{extra}]"
        ) from missing
