"""Export Programs as artifacts: ONNX, Loihi integers, netx, Lava; and verify them."""
