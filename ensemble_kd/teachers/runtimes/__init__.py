"""Ways to run networks that are only listened to, and choosing the fastest that will do."""

from ensemble_kd.teachers.runtimes.bf16 import Bf16
from ensemble_kd.teachers.runtimes.bn_folded import BnFolded, folded
from ensemble_kd.teachers.runtimes.channels_last import ChannelsLast
from ensemble_kd.teachers.runtimes.choice import Chosen, choose, runtimes
from ensemble_kd.teachers.runtimes.comparing import Allowed, Compared, compare
from ensemble_kd.teachers.runtimes.compiled import Compiled
from ensemble_kd.teachers.runtimes.cuda_graph import CudaGraph
from ensemble_kd.teachers.runtimes.in_place import InPlace
from ensemble_kd.teachers.runtimes.onnx import OnnxRuntime
from ensemble_kd.teachers.runtimes.plain import Plain
from ensemble_kd.teachers.runtimes.runtime import Answer, Runtime, Unavailable
from ensemble_kd.teachers.runtimes.stacked import Stacked
from ensemble_kd.teachers.runtimes.together import Answers, Together, choose_together

__all__ = [
    "Allowed",
    "Answer",
    "Answers",
    "Bf16",
    "BnFolded",
    "ChannelsLast",
    "Chosen",
    "Compared",
    "Compiled",
    "CudaGraph",
    "InPlace",
    "OnnxRuntime",
    "Plain",
    "Runtime",
    "Stacked",
    "Together",
    "Unavailable",
    "choose",
    "choose_together",
    "compare",
    "folded",
    "runtimes",
]
