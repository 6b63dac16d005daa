"""Networks that teach: frozen, together, and as one predictor."""

from ensemble_kd.teachers.ensemble import Ensemble
from ensemble_kd.teachers.frozen import Frozen
from ensemble_kd.teachers.mixture import Mixture
from ensemble_kd.teachers.trajectory import Trajectory

__all__ = ["Ensemble", "Frozen", "Mixture", "Trajectory"]
