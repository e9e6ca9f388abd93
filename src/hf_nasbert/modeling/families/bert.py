"""Stock BERT: every head of a child has its own there."""

from collections.abc import Sequence
from typing import ClassVar

from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    PreTrainedConfig,
)

from hf_nasbert.modeling import (
    NasBertForMaskedLM,
    NasBertForMultipleChoice,
    NasBertForQuestionAnswering,
    NasBertForSequenceClassification,
    NasBertForTokenClassification,
    NasBertModel,
)

from .base import Family

SAME_FIELDS = (
    "vocab_size",
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "classifier_dropout",
    "max_position_embeddings",
    "type_vocab_size",
    "initializer_range",
    "layer_norm_eps",
    "pad_token_id",
    "tie_word_embeddings",
)
"""Fields that BERT, RoBERTa, ELECTRA and children call by one name."""


class Bert(Family):
    """BERT. Its embeddings are as wide as its layers."""

    name = "BERT"
    config_class: ClassVar[type[PreTrainedConfig]] = BertConfig
    heads = {
        NasBertModel: BertModel,
        NasBertForMaskedLM: BertForMaskedLM,
        NasBertForSequenceClassification: BertForSequenceClassification,
        NasBertForTokenClassification: BertForTokenClassification,
        NasBertForQuestionAnswering: BertForQuestionAnswering,
        NasBertForMultipleChoice: BertForMultipleChoice,
    }
    near = {BertForPreTraining: NasBertForMaskedLM}
    fields = {name: name for name in SAME_FIELDS}
    head_names: ClassVar[Sequence[tuple[str, str]]] = (
        (r"cls\.predictions\.(?:transform\.)?(?P<rest>.+)", "lm_head.{rest}"),
    )

    def stock_fields(self, config):
        if config.word_embedding_size != config.hidden_size:
            raise self._refusal(
                f"its embeddings are {config.word_embedding_size} wide and its blocks {config.hidden_size}, and "
                f"{self.name}'s embeddings are as wide as its layers"
            )
        return super().stock_fields(config)


BERT = Bert()
