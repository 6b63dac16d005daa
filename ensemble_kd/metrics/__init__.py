"""Metrics that stream over batches and count every sample once."""

from __future__ import annotations

from ensemble_kd.metrics.agreement import Agreement
from ensemble_kd.metrics.brier import Brier
from ensemble_kd.metrics.error_inheritance import ErrorInheritance
from ensemble_kd.metrics.knowledge_transfer import KnowledgeTransfer
from ensemble_kd.metrics.negative_log_likelihood import NegativeLogLikelihood
from ensemble_kd.metrics.oracle_accuracy import OracleAccuracy
from ensemble_kd.metrics.predictive_kl import PredictiveKL
from ensemble_kd.metrics.probability_loyalty import ProbabilityLoyalty
from ensemble_kd.metrics.span_f1 import SpanF1, cut_texts
from ensemble_kd.metrics.teacher_diversity import TeacherDiversity

__all__ = [
    "Agreement",
    "Brier",
    "ErrorInheritance",
    "KnowledgeTransfer",
    "NegativeLogLikelihood",
    "OracleAccuracy",
    "PredictiveKL",
    "ProbabilityLoyalty",
    "SpanF1",
    "TeacherDiversity",
    "cut_texts",
]
