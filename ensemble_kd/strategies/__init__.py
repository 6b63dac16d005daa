"""Who learns from whom: one leaf file per method."""

from ensemble_kd.strategies.adversarial import Adversarial
from ensemble_kd.strategies.assistant import Assistants
from ensemble_kd.strategies.born_again import BornAgain
from ensemble_kd.strategies.codistillation import Codistillation
from ensemble_kd.strategies.collaborative import Collaborative
from ensemble_kd.strategies.disk import DiSK
from ensemble_kd.strategies.features_first import FeaturesFirst
from ensemble_kd.strategies.fusion import Fusion
from ensemble_kd.strategies.kdcl import KDCL
from ensemble_kd.strategies.layer_by_layer import LayerByLayer
from ensemble_kd.strategies.local_targets import LocalTargets
from ensemble_kd.strategies.multi_task import MultiTask, OfTask, OneTask
from ensemble_kd.strategies.mutual import Mutual
from ensemble_kd.strategies.okddip import OKDDip
from ensemble_kd.strategies.one import One
from ensemble_kd.strategies.parallel import Parallel
from ensemble_kd.strategies.peer_collaborative import PeerCollaborative
from ensemble_kd.strategies.rocket import Rocket
from ensemble_kd.strategies.self_distillation import BranchDistillation, SelfDistillation
from ensemble_kd.strategies.strategy import Strategy
from ensemble_kd.strategies.student_friendly import StudentFriendly
from ensemble_kd.strategies.teacher_free import TeacherFree
from ensemble_kd.strategies.two_phases import TwoPhases

__all__ = [
    "KDCL",
    "Adversarial",
    "Assistants",
    "BornAgain",
    "BranchDistillation",
    "Codistillation",
    "Collaborative",
    "DiSK",
    "FeaturesFirst",
    "Fusion",
    "LayerByLayer",
    "LocalTargets",
    "MultiTask",
    "Mutual",
    "OKDDip",
    "OfTask",
    "One",
    "OneTask",
    "Parallel",
    "PeerCollaborative",
    "Rocket",
    "SelfDistillation",
    "Strategy",
    "StudentFriendly",
    "TeacherFree",
    "TwoPhases",
]
