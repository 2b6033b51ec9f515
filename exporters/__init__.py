"""Program to artifacts: ONNX, Loihi integers, netx, Lava; and verify."""
