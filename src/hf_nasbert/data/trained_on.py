"""The file of a stand-alone child that says which text it was trained on, as the log of a super-net does."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hf_nasbert.writing import write_text

TRAINED_ON = "trained_on.json"
MASKING = ("mlm_probability", "whole_word_mask")


def write_trained_on(folder: str | Path, text: Mapping[str, Any], batches: Mapping[str, Any]) -> Path:
    """Write what is to be known of a model's text.

    Args:
        folder: The model's folder.
        text: What `DataArguments.describe` says.
        batches: What `MaskedBatches.describe` says; the length of sequences and the masking are kept of it.

    Returns:
        The file.
    """
    kept = {name: batches[name] for name in ("sequence_length", *MASKING) if name in batches}
    file = Path(folder) / TRAINED_ON
    write_text(file, json.dumps({"text": dict(text), "data": kept}, indent=2) + "\n")
    return file
