"""What the smaller commands, ``python -m ensemble_kd.NAME``, have in common."""

from __future__ import annotations

import argparse
import errno
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from ensemble_kd.errors import UserError, printable
from ensemble_kd.paths import looked_up

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""What the system says of a disk, or of one's share of it, that is full."""

IN_RUST = re.compile(r"\(os error (\d+)\)")
"""How libraries written in Rust quote the system."""


class Parser(argparse.ArgumentParser):
    """Mistakes in one line, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and end with status 2."""
        self.exit(2, f"error: {printable(message)}\n")


def path(text: str) -> Path:
    """A path on a command line, as the ``type`` of an argument: one that can be looked up.

    Raises:
        argparse.ArgumentTypeError: it is too long, say, or leads through what may not be read.
    """
    try:
        return looked_up(text, "path")
    except UserError as mistake:
        raise argparse.ArgumentTypeError(str(mistake)) from mistake


def status(work: Callable[[], int | None], interrupted: str = "interrupted") -> int:
    """Do what a command is for, and return its exit status.

    Args:
        work: returns a status, or nothing for 0; raises ``UserError`` for a mistake of the
            user's: one line, status 2.
        interrupted: what is said after Ctrl-C; status 130.
    """
    try:
        return work() or 0
    except UserError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Whoever read the output has gone; without this, Python would complain on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as failure:
        if (said := full_disk(failure)) is None:
            raise
        print(f"error: {said}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return 130


def full_disk(failure: BaseException) -> str | None:
    """One line on a disk that is full, wherever that was met; None for any other failure.

    Args:
        failure: of the system, or one that it caused. Libraries written in Rust have exceptions of
            their own, which say only in words what the system said.
    """
    said = [failure.errno] if isinstance(failure, OSError) else IN_RUST.findall(str(failure))
    for number in (int(each) for each in said if each is not None):
        if number in FULL:
            name = getattr(failure, "filename", None)
            where = f": {name}" if name else ""
            return (
                f"{os.strerror(number)}{where}: what was whole still is, and the same command goes "
                "on from there when there is room"
            )
    return full_disk(failure.__cause__) if failure.__cause__ else None
