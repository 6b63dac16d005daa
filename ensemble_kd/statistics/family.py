"""All settings of a sweep against one control: the correction, and a verdict on each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ensemble_kd.statistics.comparison import Comparison
from ensemble_kd.statistics.holm import holm
from ensemble_kd.statistics.sentence import Scale, sentence
from ensemble_kd.statistics.verdict import Verdict, called


class Judged(NamedTuple):
    """A setting as it is reported.

    Attributes:
        found: the comparison with its control.
        settings: in the family for which p-values were corrected.
        p_holm: ``found.p``, corrected.
        p_below_holm: ``found.p_below``, corrected.
        verdict: by the rule of ``called``.
        sentence: why, and what would settle it if nothing could be called.
    """

    found: Comparison
    settings: int
    p_holm: float
    p_below_holm: float
    verdict: Verdict
    sentence: str


def judge(compared: Mapping[str, Comparison], reference: str, scale: Scale) -> dict[str, Judged]:
    """Correct the p-values of a family (Holm) and call each setting.

    The two questions, is there a gain and is it below the margin, are a family each. Settings with
    too few seeds to be called count in it too: they were looked at.

    Args:
        compared: by setting; all settings of the sweep that have this control.
        reference: the control, as it is named in the sentences.
        scale: how values of the metric are written there.
    """
    if not compared:
        return {}
    either = holm([found.p for found in compared.values()])
    below = holm([found.p_below for found in compared.values()])
    judged = {}
    for (name, found), p, p_below in zip(compared.items(), either, below, strict=True):
        verdict = called(found.n, found.mean, p, p_below)
        said = sentence(found, verdict, p, p_below, len(compared), reference, scale)
        judged[name] = Judged(found, len(compared), float(p), float(p_below), verdict, said)
    return judged
