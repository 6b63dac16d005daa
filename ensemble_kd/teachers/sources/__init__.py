"""Where teachers come from that were not trained here."""

from ensemble_kd.teachers.sources.artefact import Artefact
from ensemble_kd.teachers.sources.callable import Called, Teacher, given_as_object
from ensemble_kd.teachers.sources.huggingface import HuggingFace
from ensemble_kd.teachers.sources.lightgbm import LightGbm
from ensemble_kd.teachers.sources.module import Module
from ensemble_kd.teachers.sources.onnx import Onnx
from ensemble_kd.teachers.sources.preprocess import Preprocess
from ensemble_kd.teachers.sources.recorded import Recorded
from ensemble_kd.teachers.sources.sklearn import Sklearn
from ensemble_kd.teachers.sources.source import Identities, Loaded, Source, Told
from ensemble_kd.teachers.sources.timm import Timm
from ensemble_kd.teachers.sources.xgboost import XgBoost

__all__ = [
    "Artefact",
    "Called",
    "HuggingFace",
    "Identities",
    "LightGbm",
    "Loaded",
    "Module",
    "Onnx",
    "Preprocess",
    "Recorded",
    "Sklearn",
    "Source",
    "Teacher",
    "Timm",
    "Told",
    "XgBoost",
    "given_as_object",
]
