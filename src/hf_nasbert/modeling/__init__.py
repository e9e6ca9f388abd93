"""Model family: super-nets and their children. The first of the names below registers both with the Auto classes.

They load on first use, so that names and geometry of operators, plain Python, are there without torch.

Tensor axes in comments: B batch, T tokens, D hidden size, W width of an operator, H heads, V vocabulary, L choice
blocks, N labelled positions.
"""

import importlib
from typing import TYPE_CHECKING, Any

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

_HOME_OF = {
    "OPERATOR_KINDS": "geometry_nasbert",
    "TOKENWISE_KINDS": "geometry_nasbert",
    "NasBertConfig": "configuration_nasbert",
    "NasBertForMaskedLM": "modeling_nasbert",
    "NasBertForMultipleChoice": "modeling_nasbert",
    "NasBertForQuestionAnswering": "modeling_nasbert",
    "NasBertForSequenceClassification": "modeling_nasbert",
    "NasBertForTokenClassification": "modeling_nasbert",
    "NasBertModel": "modeling_nasbert",
    "SupernetConfig": "configuration_supernet",
    "SupernetForMaskedLM": "modeling_supernet",
    "SupernetForQuestionAnswering": "modeling_supernet",
    "SupernetForSequenceClassification": "modeling_supernet",
    "SupernetForTokenClassification": "modeling_supernet",
    "SupernetModel": "modeling_supernet",
    "last_mixing_block": "geometry_nasbert",
}

__all__ = [*_HOME_OF]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    importlib.import_module(f"{__name__}.auto_classes")
    return getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
