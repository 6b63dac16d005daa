"""The one error that a user sees as a single line."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable

SECRET = re.compile("TOKEN|SECRET|PASSW|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE", re.IGNORECASE)
"""In the names of variables of the environment whose values are secrets."""

SHORTEST = 8
"""Letters of a secret; shorter values stand in many texts by chance."""


class UserError(ValueError):
    """Something the user gave is wrong; the message is one line: what, where and what to do.

    The command line prints it without a traceback and exits with status 2. What is quoted in it may
    hold anything: characters that would break the line, or mean something to a terminal, are
    escaped. Nor does it show what a variable of the environment holds whose name says that it is a
    secret.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(concealed(str(message))))


def printable(text: str) -> str:
    """A text in which what a terminal would not just show stands as its escape."""
    return "".join(map(_shown, text))


def concealed(text: str) -> str:
    """A text without what the environment's secrets hold: their names stand in their places."""
    for name, value in os.environ.items():
        if len(value) >= SHORTEST and value in text and SECRET.search(name):
            text = text.replace(value, f"[{name}]")
    return text


def _shown(character: str) -> str:
    return character if character.isprintable() else repr(character)[1:-1]


def nearest(word: object, known: Iterable[str], count: int = 3) -> str:
    """A hint such as ``; did you mean 'teacher'?``, or the known names when none is near.

    Args:
        word: what was given.
        known: what would have been right.
        count: how many near names to offer at most.
    """
    names = sorted(set(known))
    near = difflib.get_close_matches(str(word), names, n=count, cutoff=0.5)
    if near:
        return "; did you mean " + " or ".join(repr(name) for name in near) + "?"
    return "; known: " + ", ".join(names) if names else ""
