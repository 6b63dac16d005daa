"""Where the files that ship with the package lie."""

from __future__ import annotations

from pathlib import Path


def conf_dir() -> Path:
    """The folder of the configuration groups, absolute.

    A wheel carries it inside the package; in a checkout it lies beside the package.
    """
    package = Path(__file__).resolve().parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"
