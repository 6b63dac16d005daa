"""Pure maths on tensors, without state."""

from ensemble_kd.functional.correlation import pearson, relations_of_logs
from ensemble_kd.functional.decoupled import decoupled_of_logs
from ensemble_kd.functional.divergences import (
    cross_entropy,
    cross_entropy_of_logs,
    entropy,
    jensen_shannon_of_logs,
    kl,
    kl_of_logs,
    log_probabilities,
    soft_cross_entropy,
    total_variation_of_logs,
    wide,
)
from ensemble_kd.functional.merging import (
    Divergence,
    Merge,
    checked_merge,
    log_mean_probabilities,
    mean_logits,
    merged,
    merged_kl,
    stacked,
    teachers_logits,
)
from ensemble_kd.functional.min_norm import min_norm_weights
from ensemble_kd.functional.standardise import standardise
from ensemble_kd.functional.uncast import uncast, widened
from ensemble_kd.functional.unit import unit
from ensemble_kd.functional.weights import complement, normalise, spread

__all__ = [
    "Divergence",
    "Merge",
    "checked_merge",
    "complement",
    "cross_entropy",
    "cross_entropy_of_logs",
    "decoupled_of_logs",
    "entropy",
    "jensen_shannon_of_logs",
    "kl",
    "kl_of_logs",
    "log_mean_probabilities",
    "log_probabilities",
    "mean_logits",
    "merged",
    "merged_kl",
    "min_norm_weights",
    "normalise",
    "pearson",
    "relations_of_logs",
    "soft_cross_entropy",
    "spread",
    "stacked",
    "standardise",
    "teachers_logits",
    "total_variation_of_logs",
    "uncast",
    "unit",
    "wide",
    "widened",
]
