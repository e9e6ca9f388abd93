"""What a user may say to the export of a child: one dataclass, without torch."""

from dataclasses import dataclass, field

from hf_nasbert.paths import expand_paths
from hf_nasbert.tolerances import EXPORT


@dataclass
class ExportArguments:
    """Which model to export, and where to put it."""

    model: str = field(metadata={"help": "Folder or Hub name of a child with any head, or of a stock BERT."})
    output_dir: str = field(metadata={"help": "New folder for model.onnx, config and tokenizer."})
    tokenizer_name: str | None = field(
        default=None, metadata={"help": "Where the tokenizer is; by default the model's."}
    )
    revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of a Hub model."})
    tolerance: float = field(default=EXPORT, metadata={"help": "Largest difference of outputs that the proof allows."})

    def __post_init__(self) -> None:
        expand_paths(self)
