"""Program to ONNX in standard operators, and such files back in ONNX Runtime, spike for spike."""

from stl_deploy.exporters.onnx.export import export_onnx
from stl_deploy.exporters.onnx.interface import Form, Interface, StateTensor
from stl_deploy.exporters.onnx.model import OnnxModel, OnnxStream

__all__ = ["Form", "Interface", "OnnxModel", "OnnxStream", "StateTensor", "export_onnx"]
