"""Pure maths on tensors, without state."""

from ensemble_kd.functional.divergences import (
    cross_entropy,
    entropy,
    kl,
    kl_of_logs,
    log_probabilities,
    soft_cross_entropy,
    wide,
)
from ensemble_kd.functional.merging import (
    Merge,
    log_mean_probabilities,
    mean_logits,
    merged_kl,
    stacked,
)
from ensemble_kd.functional.min_norm import min_norm_weights
from ensemble_kd.functional.weights import complement, normalise, spread

__all__ = [
    "Merge",
    "complement",
    "cross_entropy",
    "entropy",
    "kl",
    "kl_of_logs",
    "log_mean_probabilities",
    "log_probabilities",
    "mean_logits",
    "merged_kl",
    "min_norm_weights",
    "normalise",
    "soft_cross_entropy",
    "spread",
    "stacked",
    "wide",
]
