"""Model family: super-nets and their children. The first of the names below registers both with the Auto classes.

They load on first use, so that names and geometry of operators, plain Python, are there without torch.

Tensor axes in comments: B batch, T tokens, D hidden size, W width of an operator, H heads, V vocabulary, L choice
blocks, N labelled positions.
"""

import importlib
from typing import TYPE_CHECKING, Any

from hf_nasbert.lazy import load_on_first_use

if TYPE_CHECKING:
    from .configuration_nasbert import NasBertConfig
    from .configuration_supernet import SupernetConfig
    from .geometry_nasbert import OPERATOR_KINDS, TOKENWISE_KINDS, last_mixing_block
    from .modeling_nasbert import (
        NasBertForMaskedLM,
        NasBertForMultipleChoice,
        NasBertForQuestionAnswering,
        NasBertForSequenceClassification,
        NasBertForTokenClassification,
        NasBertModel,
    )
    from .modeling_supernet import (
        SupernetForMaskedLM,
        SupernetForQuestionAnswering,
        SupernetForSequenceClassification,
        SupernetForTokenClassification,
        SupernetModel,
    )

_find, __dir__, __all__ = load_on_first_use(__name__)


def __getattr__(name: str) -> Any:
    if name in __all__:
        importlib.import_module(f"{__name__}.auto_classes")
    return _find(name)
