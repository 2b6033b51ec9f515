"""Export a Program to ONNX in standard operators, and run such files in ONNX Runtime, spike for spike."""

from stl_deploy.exporters.onnx.export import export_onnx
from stl_deploy.exporters.onnx.model import OnnxModel, OnnxStream

__all__ = ["OnnxModel", "OnnxStream", "export_onnx"]
