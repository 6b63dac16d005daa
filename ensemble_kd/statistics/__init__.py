"""Did it help? Paired comparisons over seeds, and what may be said of them.

A setting is held against its control seed by seed: both share the split, the order and the initial
weights, so that the difference of the two is what counts. Nothing here knows of networks.
"""

from __future__ import annotations

from ensemble_kd.statistics.comparison import Comparison, compare, compare_each
from ensemble_kd.statistics.effect import effect_size
from ensemble_kd.statistics.family import Judged, judge
from ensemble_kd.statistics.holm import holm
from ensemble_kd.statistics.interval import Interval, bootstrap_interval, t_interval
from ensemble_kd.statistics.seeds import seeds_to_call, seeds_to_show
from ensemble_kd.statistics.sentence import Scale
from ensemble_kd.statistics.sign_flip import is_exact, sign_flip
from ensemble_kd.statistics.verdict import ALPHA, ENOUGH, Verdict, called

__all__ = [
    "ALPHA",
    "ENOUGH",
    "Comparison",
    "Interval",
    "Judged",
    "Scale",
    "Verdict",
    "bootstrap_interval",
    "called",
    "compare",
    "compare_each",
    "effect_size",
    "holm",
    "is_exact",
    "judge",
    "seeds_to_call",
    "seeds_to_show",
    "sign_flip",
    "t_interval",
]
