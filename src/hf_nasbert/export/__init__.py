"""Children as ONNX files, proven in onnxruntime."""

from typing import TYPE_CHECKING

from hf_nasbert.lazy import load_on_first_use

if TYPE_CHECKING:
    from hf_nasbert.export.arguments import ExportArguments as ExportArguments
    from hf_nasbert.export.onnx import INPUTS as INPUTS
    from hf_nasbert.export.onnx import Exported as Exported
    from hf_nasbert.export.onnx import export_child as export_child
    from hf_nasbert.export.onnx import export_onnx as export_onnx

__getattr__, __dir__, __all__ = load_on_first_use(__name__)
