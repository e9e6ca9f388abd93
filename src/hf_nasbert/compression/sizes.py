"""Bytes of weights on disk: of the base model's own files, and of the file that a child is written to."""

from pathlib import Path

import torch
from safetensors.torch import save
from transformers import PreTrainedModel
from transformers.utils.hub import cached_file

from hf_nasbert.foreign import read_object
from hf_nasbert.modeling.families import native_form

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


def bytes_of_child(child: PreTrainedModel) -> int:
    """Bytes of the `model.safetensors` that a child is saved to, in the form that it is given out in."""
    model, _ = native_form(child)
    tensors: dict[int, tuple[str, torch.Tensor]] = {}
    for name, tensor in model.state_dict().items():
        tensors.setdefault(tensor.data_ptr(), (name, tensor.contiguous()))  # tied ones are saved once
    return len(save(dict(tensors.values()), {"format": "pt"}))


def bytes_of_base_model(model: str, revision: str | None = None) -> int | None:
    """Bytes of a model's own weights as they lie in its folder or in the cache, all parts of them.

    Args:
        model: Folder, or name on the Hub, which was loaded before.
        revision: Branch, tag or commit on the Hub.

    Returns:
        The bytes; `None` where there is no file of a usual name.
    """
    for name in _WEIGHTS:
        file = _there(model, name, revision)
        if file is None:
            continue
        if file.suffix != ".json":
            return file.stat().st_size
        parts = read_object(file, f"{name} of {model}").get("weight_map")
        names = set(map(str, parts.values())) if isinstance(parts, dict) else set()
        found = [_there(model, part, revision) for part in names]
        return sum(part.stat().st_size for part in found if part is not None) or None
    return None


def _there(model: str, name: str, revision: str | None) -> Path | None:
    try:
        file = cached_file(
            model, name, revision=revision, local_files_only=True, _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False,
        )  # fmt: skip
    except OSError:
        return None
    return None if file is None else Path(file)
