"""Find a better BERT for a budget: train one super-net, search its children, publish the winner as a Hub model.

The names below load on first use, so that `import hf_nasbert` and `hf-nasbert --help` are instant. The first model
or config of them, or `import hf_nasbert.modeling.auto_classes`, registers ours with transformers' Auto classes: from
then on `AutoModel.from_pretrained` loads a child without `trust_remote_code`.
"""

import importlib
import warnings
from typing import TYPE_CHECKING, Any

from hf_nasbert.lazy import load_on_first_use

if TYPE_CHECKING:
    from hf_nasbert.api.found import search
    from hf_nasbert.api.trainer import SupernetTrainer
    from hf_nasbert.child_folders import save_child
    from hf_nasbert.compression import compress
    from hf_nasbert.extraction import extract_child, load_supernet
    from hf_nasbert.modeling import (
        NasBertConfig,
        NasBertForMaskedLM,
        NasBertForMultipleChoice,
        NasBertForQuestionAnswering,
        NasBertForSequenceClassification,
        NasBertForTokenClassification,
        NasBertModel,
        SupernetConfig,
        SupernetForMaskedLM,
        SupernetModel,
    )
    from hf_nasbert.modeling.families import from_bert, to_bert
    from hf_nasbert.space import Architecture, SearchSpace
    from hf_nasbert.training import SupernetTrainingArguments

    __version__: str


_find, _, __all__ = load_on_first_use(__name__)


_MOVED = {"Budget": "costs", "FairSampler": "samplers", "GradualSampler": "samplers", "UniformSampler": "samplers"}


def __getattr__(name: str) -> Any:
    if name in _MOVED:
        room = f"hf_nasbert.{_MOVED[name]}"
        warnings.warn(
            f"{name} is found in {room}; its name here goes with the next release", FutureWarning, stacklevel=2
        )
        return getattr(importlib.import_module(room), name)
    return (
        importlib.import_module("importlib.metadata").version("hf_nasbert") if name == "__version__" else _find(name)
    )


def __dir__() -> list[str]:
    """What users need: neither rooms that happen to be loaded nor what this file imports."""
    return sorted([*__all__, "__version__"])
