"""Export to ONNX, and the proof that it is the same network."""
