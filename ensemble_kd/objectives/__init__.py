"""What is matched: objectives, and the term that turns one into a loss."""

from ensemble_kd.objectives.annealed import Annealed
from ensemble_kd.objectives.label import Label
from ensemble_kd.objectives.objective import Objective
from ensemble_kd.objectives.shrunk_logits import ShrunkLogits
from ensemble_kd.objectives.soft import Soft
from ensemble_kd.objectives.term import Term
from ensemble_kd.objectives.virtual import Virtual

__all__ = ["Annealed", "Label", "Objective", "ShrunkLogits", "Soft", "Term", "Virtual"]
