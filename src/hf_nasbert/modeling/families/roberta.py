"""RoBERTa: BERT whose positions start at `padding_idx + 1`, with heads of its own.

Its positions count real tokens: with padding on the left a child needs `position_ids` to compute the same.
"""

import torch
from transformers import (
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaForMultipleChoice,
    RobertaForQuestionAnswering,
    RobertaForSequenceClassification,
    RobertaForTokenClassification,
    RobertaModel,
)

from hf_nasbert.modeling import (
    NasBertForMaskedLM,
    NasBertForMultipleChoice,
    NasBertForQuestionAnswering,
    NasBertForSequenceClassification,
    NasBertForTokenClassification,
    NasBertModel,
)

from .bert import Bert


class Roberta(Bert):
    """RoBERTa. What it classifies sequences by is a child's pooler."""

    name = "RoBERTa"
    config_class = RobertaConfig
    heads = {
        NasBertModel: RobertaModel,
        NasBertForMaskedLM: RobertaForMaskedLM,
        NasBertForSequenceClassification: RobertaForSequenceClassification,
        NasBertForTokenClassification: RobertaForTokenClassification,
        NasBertForQuestionAnswering: RobertaForQuestionAnswering,
        NasBertForMultipleChoice: RobertaForMultipleChoice,
    }
    near = {}
    fixed = {"hidden_act": "gelu"}  # of its masked-LM head, whatever the layers have
    head_names = (
        (r"lm_head\.layer_norm\.(?P<rest>.+)", "lm_head.LayerNorm.{rest}"),
        (r"classifier\.dense\.(?P<rest>.+)", "nasbert.pooler.dense.{rest}"),
        (r"classifier\.out_proj\.(?P<rest>.+)", "classifier.{rest}"),
    )

    def child_fields(self, config):
        fields = super().child_fields(config)
        first = _first_position(config)
        return fields | {"max_position_embeddings": config.max_position_embeddings - first}

    def stock_fields(self, config):
        if config.pad_token_id is None:
            raise self._refusal("it has no padding token, from which RoBERTa's positions are counted")
        fields = super().stock_fields(config)
        return fields | {"max_position_embeddings": config.max_position_embeddings + _first_position(config)}

    def child_state(self, state, config):
        return {
            name: tensor[_first_position(config) :] if name.endswith(_POSITIONS) else tensor
            for name, tensor in state.items()
        }

    def stock_state(self, state, config):
        # No real token has one of the first positions.
        return {
            name: torch.cat([tensor.new_zeros(_first_position(config), tensor.shape[1]), tensor])
            if name.endswith(_POSITIONS)
            else tensor
            for name, tensor in state.items()
        }


_POSITIONS = "position_embeddings.weight"


def _first_position(config) -> int:
    return config.pad_token_id + 1


ROBERTA = Roberta()
