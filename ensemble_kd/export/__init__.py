"""A trained network on its way out: its constructor, its size, and ONNX."""

from ensemble_kd.export.constructor import constructor_of
from ensemble_kd.export.onnx import OnnxReport, export_onnx
from ensemble_kd.export.parameters import count_parameters

__all__ = ["OnnxReport", "constructor_of", "count_parameters", "export_onnx"]
