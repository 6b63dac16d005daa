"""Metrics that stream over batches and count every sample once."""

from __future__ import annotations

from ensemble_kd.metrics.agreement import Agreement
from ensemble_kd.metrics.negative_log_likelihood import NegativeLogLikelihood
from ensemble_kd.metrics.predictive_kl import PredictiveKL
from ensemble_kd.metrics.span_f1 import SpanF1, cut_texts

__all__ = ["Agreement", "NegativeLogLikelihood", "PredictiveKL", "SpanF1", "cut_texts"]
