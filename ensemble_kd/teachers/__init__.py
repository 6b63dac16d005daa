"""Networks that teach: frozen, together, and as one predictor."""

from ensemble_kd.teachers.cached import Cached, Kept, Remembered
from ensemble_kd.teachers.ensemble import Ensemble
from ensemble_kd.teachers.frozen import Frozen
from ensemble_kd.teachers.keeping import Keeping
from ensemble_kd.teachers.label_space import (
    Classes,
    Covered,
    LabelSpace,
    Translated,
    covered,
    refined,
    translated,
)
from ensemble_kd.teachers.memory import Memory, Places, lifted, side_by_side
from ensemble_kd.teachers.mixture import Mixture
from ensemble_kd.teachers.quick import Quick
from ensemble_kd.teachers.trajectory import Trajectory

__all__ = [
    "Cached",
    "Classes",
    "Covered",
    "Ensemble",
    "Frozen",
    "Keeping",
    "Kept",
    "LabelSpace",
    "Memory",
    "Mixture",
    "Places",
    "Quick",
    "Remembered",
    "Trajectory",
    "Translated",
    "covered",
    "lifted",
    "refined",
    "side_by_side",
    "translated",
]
