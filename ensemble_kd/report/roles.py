"""What part a predictor plays in a run, read from its name; reports order and colour by it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

Role = Literal["teacher", "ensemble", "assistant", "peer", "control", "student", "other"]

ORDER: tuple[Role, ...] = (
    "teacher",
    "ensemble",
    "assistant",
    "peer",
    "other",
    "control",
    "student",
)
"""From those who know to the one who learns, which stands last, beside its control."""


def role(name: str) -> Role:
    """The role of a predictor: ``teacher`` for ``teacher/0``."""
    first = name.partition("/")[0]
    return next((known for known in ORDER if known == first), "other")


def in_order(names: Iterable[str]) -> list[str]:
    """Names by role, and by number within a role (``teacher/2`` before ``teacher/10``)."""
    return sorted(names, key=lambda name: (ORDER.index(role(name)), _number(name), name))


def _number(name: str) -> int:
    last = name.rpartition("/")[2]
    return int(last) if last.isdecimal() else -1
