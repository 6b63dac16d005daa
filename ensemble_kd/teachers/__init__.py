"""Networks that teach: frozen, together, and as one predictor."""

from ensemble_kd.teachers.awaited import Awaited
from ensemble_kd.teachers.cached import Cached, Kept, Remembered
from ensemble_kd.teachers.ensemble import Ensemble
from ensemble_kd.teachers.foreign import Foreign, Numbered, asked
from ensemble_kd.teachers.frozen import Frozen
from ensemble_kd.teachers.keeping import Keeping
from ensemble_kd.teachers.label_space import (
    Classes,
    Covered,
    LabelSpace,
    Translated,
    TranslatedNumbered,
    covered,
    refined,
    translated,
)
from ensemble_kd.teachers.memory import Memory, lifted, side_by_side
from ensemble_kd.teachers.mixture import Mixture
from ensemble_kd.teachers.quick import Quick
from ensemble_kd.teachers.shuffled import Shuffled
from ensemble_kd.teachers.trajectory import Trajectory

__all__ = [
    "Awaited",
    "Cached",
    "Classes",
    "Covered",
    "Ensemble",
    "Foreign",
    "Frozen",
    "Keeping",
    "Kept",
    "LabelSpace",
    "Memory",
    "Mixture",
    "Numbered",
    "Quick",
    "Remembered",
    "Shuffled",
    "Trajectory",
    "Translated",
    "TranslatedNumbered",
    "asked",
    "covered",
    "lifted",
    "refined",
    "side_by_side",
    "translated",
]
