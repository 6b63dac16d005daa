"""The one error that a user sees as a single line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Something the user gave is wrong; the message is one line: what, where and what to do.

    The command line prints it without a traceback and exits with status 2.
    """


def nearest(word: str, known: Iterable[str], count: int = 3) -> str:
    """A hint such as ``; did you mean 'teacher'?``, or the known names when none is near.

    Args:
        word: what was given.
        known: what would have been right.
        count: how many near names to offer at most.
    """
    names = sorted(set(known))
    near = difflib.get_close_matches(word, names, n=count, cutoff=0.5)
    if near:
        return "; did you mean " + " or ".join(repr(name) for name in near) + "?"
    return "; known: " + ", ".join(names) if names else ""
