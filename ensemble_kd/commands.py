"""What the smaller commands, ``python -m ensemble_kd.NAME``, have in common."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from ensemble_kd.errors import UserError


class Parser(argparse.ArgumentParser):
    """Mistakes in one line, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and end with status 2."""
        self.exit(2, f"error: {message}\n")


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
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read the output has gone; without this, Python would complain on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
