"""What a user may say to the export of a child: one dataclass, without torch."""

from dataclasses import dataclass, field

from hf_nasbert.settings import Settings, setting
from hf_nasbert.tolerances import EXPORT


@dataclass
class ExportArguments(Settings):
    """Which model to export, and where to put it."""

    model: str = field(metadata={"help": "Folder or Hub name of a child with any head, or of a stock BERT."})
    output_dir: str = field(metadata={"help": "New folder for model.onnx, config and tokenizer."})
    tokenizer_name: str | None = setting(None, "Where the tokenizer is; by default the model's.")
    revision: str | None = setting(None, "Branch, tag or commit of a Hub model.")
    tolerance: float = setting(EXPORT, "Largest difference of outputs that the proof allows.")
