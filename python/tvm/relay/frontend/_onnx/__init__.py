"""What `relay.frontend.onnx` is made of."""
