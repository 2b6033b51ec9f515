"""Our ONNX files in other runtimes."""
