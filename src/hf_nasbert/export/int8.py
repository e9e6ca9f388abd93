"""An ONNX file in int8: weights once, activations as they come (onnxruntime's dynamic quantisation)."""

from pathlib import Path

from hf_nasbert.terminal import quiet


def quantise(file: Path, to: Path, *, per_channel: bool = True, reduce_range: bool = True) -> None:
    """Write the int8 version of an ONNX file into a folder that the caller then puts into its place.

    Args:
        file: The graph in single precision.
        to: The file to write.
        per_channel: Weights get a scale for each output channel; else one for each matrix.
        reduce_range: Weights use seven bits: on CPUs with AVX2 and no VNNI, sums of two products of full bytes do not
            fit.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # Given as a file, the graph would get a copy beside it for a while, which a kill would leave there.
    with quiet():  # the advice to preprocess is for networks of convolutions
        quantize_dynamic(
            onnx.load(file), to, weight_type=QuantType.QInt8, per_channel=per_channel, reduce_range=reduce_range
        )
