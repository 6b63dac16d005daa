"""Packages that only some parts of this one need, and that need not be installed."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
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
    expect_installed(module, who)
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as missing:
        package = module.partition(".")[0]
        if missing.name is not None and missing.name.partition(".")[0] != package:
            raise
        raise UserError(
            f"{who} needs the package {package!r}: pip install ensemble-kd[{extra}]"
        ) from missing


def expect_installed(module: str, who: str) -> None:
    """A package of others must not be a file or a folder of its name where the command was started.

    ``python -m`` looks there first: whoever works in a folder that came from elsewhere would run
    what lies in it.

    Args:
        module: an import path; nothing of it is imported.
        who: needs it, for the message.

    Raises:
        UserError: it is.
    """
    package = module.partition(".")[0]
    if package == __package__.partition(".")[0]:
        return
    try:
        spec = importlib.util.find_spec(package)
    except ValueError:  # something else stands in its place, as in a test
        return
    if spec is None:
        return
    found = [*(spec.submodule_search_locations or ()), *([spec.origin] if spec.origin else ())]
    if any(Path(each).parent == Path.cwd() for each in found):
        raise UserError(
            f"{who} needs the package {package!r}, and {package} in the current folder stands in "
            "its way: rename that, or work in another folder"
        )
