"""Children as ONNX files, proven in onnxruntime."""

from typing import TYPE_CHECKING

from hf_nasbert.lazy import load_on_first_use

if TYPE_CHECKING:
    from hf_nasbert.export.arguments import ExportArguments
    from hf_nasbert.export.onnx import INPUTS, Exported, export_child, export_onnx

__getattr__, __dir__, __all__ = load_on_first_use(__name__)
