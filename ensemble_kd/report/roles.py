"""What part a predictor plays in a run, read from its name; reports order and colour by it."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
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

REFERENCES: tuple[Role, ...] = ("ensemble", *(each for each in ORDER if each != "ensemble"))
"""Of two predictors the one that stands earlier here is what the other is held against."""

ALONE = "control/no_teacher"
"""The control that the verdict is about: the same student without teachers."""


def role(name: str) -> Role:
    """The role of a predictor: ``teacher`` for ``teacher/0``."""
    first = name.partition("/")[0]
    return next((known for known in ORDER if known == first), "other")


def in_order(names: Iterable[str]) -> list[str]:
    """Names by role, and by number within a role (``teacher/2`` before ``teacher/10``)."""
    return sorted(names, key=lambda name: (ORDER.index(role(name)), _number(name), name))


def pairs(names: Iterable[str]) -> list[tuple[str, str]]:
    """Every pair of predictors once, its reference second."""
    ranked = sorted(in_order(names), key=lambda name: REFERENCES.index(role(name)))
    return [(name, reference) for reference, name in combinations(ranked, 2)]


def _number(name: str) -> int:
    last = name.rpartition("/")[2]
    return int(last) if last.isdecimal() else -1
