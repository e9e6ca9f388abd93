"""ELECTRA: BERT with embeddings of a width of their own and without a pooler.

What it classifies sequences by is a child's pooler, with a GELU. The head of its multiple choice is no child's; its
discriminator is converted without head.
"""

from transformers import (
    ElectraConfig,
    ElectraForMaskedLM,
    ElectraForMultipleChoice,
    ElectraForPreTraining,
    ElectraForQuestionAnswering,
    ElectraForSequenceClassification,
    ElectraForTokenClassification,
    ElectraModel,
)

from hf_nasbert.modeling import (
    NasBertForMaskedLM,
    NasBertForQuestionAnswering,
    NasBertForSequenceClassification,
    NasBertForTokenClassification,
    NasBertModel,
)

from .base import Family
from .bert import SAME_FIELDS


class Electra(Family):
    """ELECTRA."""

    name = "ELECTRA"
    config_class = ElectraConfig
    heads = {
        NasBertModel: ElectraModel,
        NasBertForMaskedLM: ElectraForMaskedLM,
        NasBertForSequenceClassification: ElectraForSequenceClassification,
        NasBertForTokenClassification: ElectraForTokenClassification,
        NasBertForQuestionAnswering: ElectraForQuestionAnswering,
    }
    near = dict.fromkeys((ElectraForPreTraining, ElectraForMultipleChoice), NasBertModel)
    fields = {name: name for name in SAME_FIELDS}
    fixed = {"hidden_act": "gelu"}  # of its masked-LM head, whatever the layers have
    encoder_names = (
        (r"embeddings_project\.(?P<rest>.+)", "embeddings.embeddings_project.{rest}"),
        *Family.encoder_names,
    )
    head_names = (
        (r"generator_predictions\.(?P<rest>.+)", "lm_head.{rest}"),
        (r"generator_lm_head\.(?P<rest>.+)", "lm_head.decoder.{rest}"),
        (r"classifier\.dense\.(?P<rest>.+)", "nasbert.pooler.dense.{rest}"),
        (r"classifier\.out_proj\.(?P<rest>.+)", "classifier.{rest}"),
    )
    pooler_act = "gelu"
    has_pooler = False

    def child_fields(self, config):
        same = config.embedding_size == config.hidden_size
        return super().child_fields(config) | {"embedding_size": None if same else config.embedding_size}

    def stock_fields(self, config):
        return super().stock_fields(config) | {"embedding_size": config.word_embedding_size}


ELECTRA = Electra()
