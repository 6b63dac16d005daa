"""What is matched: objectives, and the term that turns one into a loss."""

from ensemble_kd.objectives.activation_boundary import ActivationBoundary
from ensemble_kd.objectives.annealed import Annealed
from ensemble_kd.objectives.attention_transfer import AttentionTransfer
from ensemble_kd.objectives.balanced import Balanced
from ensemble_kd.objectives.comparison import Comparison, JointComparison, Passes, Studied
from ensemble_kd.objectives.correlation import Correlation
from ensemble_kd.objectives.cosine import Cosine
from ensemble_kd.objectives.crd import Crd
from ensemble_kd.objectives.cross_entropy_soft import CrossEntropySoft
from ensemble_kd.objectives.dist import Dist
from ensemble_kd.objectives.dkd import Dkd
from ensemble_kd.objectives.factor import Factor
from ensemble_kd.objectives.hint import Hint
from ensemble_kd.objectives.jsd import Jsd
from ensemble_kd.objectives.label import Label
from ensemble_kd.objectives.layers import Layers
from ensemble_kd.objectives.matched import Matched
from ensemble_kd.objectives.material import Material
from ensemble_kd.objectives.minilm import MiniLm
from ensemble_kd.objectives.mobilebert import MobileBertAttention, MobileBertStates
from ensemble_kd.objectives.mse_logits import MseLogits
from ensemble_kd.objectives.nst import Nst
from ensemble_kd.objectives.objective import Objective
from ensemble_kd.objectives.overhaul import Overhaul
from ensemble_kd.objectives.pkd import Pkd
from ensemble_kd.objectives.pkt import Pkt
from ensemble_kd.objectives.pseudo_label import PseudoLabel
from ensemble_kd.objectives.relation import Relation
from ensemble_kd.objectives.reverse_kl import ReverseKl
from ensemble_kd.objectives.reviewkd import ReviewKd
from ensemble_kd.objectives.rkd import Rkd
from ensemble_kd.objectives.semckd import SemCkd
from ensemble_kd.objectives.shrunk_logits import ShrunkLogits
from ensemble_kd.objectives.similarity import Similarity
from ensemble_kd.objectives.soft import Soft
from ensemble_kd.objectives.standardised import Standardised
from ensemble_kd.objectives.term import Term
from ensemble_kd.objectives.tinybert import TinyBertAttention, TinyBertStates
from ensemble_kd.objectives.tvd import Tvd
from ensemble_kd.objectives.vid import Vid
from ensemble_kd.objectives.virtual import Virtual

__all__ = [
    "ActivationBoundary",
    "Annealed",
    "AttentionTransfer",
    "Balanced",
    "Comparison",
    "Correlation",
    "Cosine",
    "Crd",
    "CrossEntropySoft",
    "Dist",
    "Dkd",
    "Factor",
    "Hint",
    "JointComparison",
    "Jsd",
    "Label",
    "Layers",
    "Matched",
    "Material",
    "MiniLm",
    "MobileBertAttention",
    "MobileBertStates",
    "MseLogits",
    "Nst",
    "Objective",
    "Overhaul",
    "Passes",
    "Pkd",
    "Pkt",
    "PseudoLabel",
    "Relation",
    "ReverseKl",
    "ReviewKd",
    "Rkd",
    "SemCkd",
    "ShrunkLogits",
    "Similarity",
    "Soft",
    "Standardised",
    "Studied",
    "Term",
    "TinyBertAttention",
    "TinyBertStates",
    "Tvd",
    "Vid",
    "Virtual",
]
