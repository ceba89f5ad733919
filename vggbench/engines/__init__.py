"""TensorRT engines from ONNX files: built, kept, run and timed. Beside TensorRT they need numpy and a buffer provider.

Nothing here imports torch (but for buffers_torch), onnx, pydantic or typer: it works in a Python without them.
"""
