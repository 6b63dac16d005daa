"""The rule by which a setting is called."""

from __future__ import annotations

from typing import Literal

Verdict = Literal["HELPS", "DOES NOT HELP", "INCONCLUSIVE"]

ALPHA = 0.05
"""Level of every family of tests."""

ENOUGH = 6
"""Seeds without which nothing is called: with 5, no two-sided p-value can be below 2/32."""


def called(n: int, mean: float, p: float, p_below: float) -> Verdict:
    """The verdict on a setting; a gain that is certain, though below the margin, does help.

    Args:
        n: paired seeds.
        mean: gain.
        p: of the two-sided test that there is no gain, corrected for the family.
        p_below: of the one-sided test that the gain is the margin or more, corrected likewise.
    """
    if n < ENOUGH:
        return "INCONCLUSIVE"
    if p <= ALPHA:
        return "HELPS" if mean > 0 else "DOES NOT HELP"
    return "DOES NOT HELP" if p_below <= ALPHA else "INCONCLUSIVE"
