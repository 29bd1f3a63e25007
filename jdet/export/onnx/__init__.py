"""Programs of JAX as ONNX graphs (opset 18), without the package onnx."""
