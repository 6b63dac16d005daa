"""Where the files that ship with the package lie."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from ensemble_kd.errors import UserError


def conf_dir() -> Path:
    """The folder of the configuration groups, absolute.

    A wheel carries it inside the package; in a checkout it lies beside the package.
    """
    package = Path(__file__).resolve().parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def looked_up(path: str | Path, key: str) -> Path:
    """A path of the user's, ``~`` resolved, after it was looked up once.

    Args:
        path: of something that need not be there.
        key: where it stands in the configuration, or on a command line.

    Raises:
        UserError: it cannot be looked up: it is too long, say, or leads through what may not be
            read.
    """
    try:
        found = Path(path).expanduser()
        found.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError, RuntimeError) as failure:
        reason = failure.strerror if isinstance(failure, OSError) else failure
        raise UserError(f"{key}: expected a path, got {str(path)!r}: {reason}") from failure
    return found


def expect_writable(folder: Path, key: str) -> None:
    """The nearest folder that exists must be one into which something can be put.

    Raises:
        UserError: it is not.
    """
    existing = folder.absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    try:
        # The permission bits do not tell: a super-user passes them, a read-only disk has them.
        os.rmdir(tempfile.mkdtemp(prefix=".ensemble_kd-", dir=existing))
    except OSError as failure:
        raise UserError(f"{key}: expected a folder that can be written, got {folder}") from failure
