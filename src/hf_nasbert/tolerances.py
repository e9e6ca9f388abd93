"""How far apart the outputs of one network may lie: what is allowed where a proof compares them, in float32."""

EXTRACTION = 1e-6
"""Logits of a child and of the super-net: other kernels for the same mathematics."""
RELOADING = 1e-5
"""Of a model loaded elsewhere, relative to the largest output: other threads may add in another order."""
EXPORT = 1e-4
"""Outputs of a model and of its ONNX file: the kernels of two runtimes."""
