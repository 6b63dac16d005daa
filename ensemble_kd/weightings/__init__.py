"""How the opinions of several teachers are weighted."""

from ensemble_kd.weightings.best import Best
from ensemble_kd.weightings.confidence import Confidence
from ensemble_kd.weightings.dropped import Dropped
from ensemble_kd.weightings.entropy import Entropy
from ensemble_kd.weightings.fixed import Fixed
from ensemble_kd.weightings.gradient import Gradient
from ensemble_kd.weightings.learned import Learned
from ensemble_kd.weightings.monitor import Monitor
from ensemble_kd.weightings.random import Random
from ensemble_kd.weightings.reinforced import Reinforced
from ensemble_kd.weightings.uniform import Uniform
from ensemble_kd.weightings.weighting import Weighting

__all__ = [
    "Best",
    "Confidence",
    "Dropped",
    "Entropy",
    "Fixed",
    "Gradient",
    "Learned",
    "Monitor",
    "Random",
    "Reinforced",
    "Uniform",
    "Weighting",
]
