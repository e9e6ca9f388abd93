"""DistilBERT: BERT without segments and pooler, under names of its own.

What it classifies sequences by is a child's pooler, with a ReLU.
"""

from transformers import (
    DistilBertConfig,
    DistilBertForMaskedLM,
    DistilBertForMultipleChoice,
    DistilBertForQuestionAnswering,
    DistilBertForSequenceClassification,
    DistilBertForTokenClassification,
    DistilBertModel,
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

_PARTS = {
    "attention.q_lin": "{attention}.operator.self.query",
    "attention.k_lin": "{attention}.operator.self.key",
    "attention.v_lin": "{attention}.operator.self.value",
    "attention.out_lin": "{attention}.operator.output.dense",
    "sa_layer_norm": "{attention}.operator.output.LayerNorm",
    "ffn.lin1": "{ffn}.operator.intermediate.dense",
    "ffn.lin2": "{ffn}.operator.output.dense",
    "output_layer_norm": "{ffn}.operator.output.LayerNorm",
}


class DistilBert(Bert):
    """DistilBERT."""

    name = "DistilBERT"
    config_class = DistilBertConfig
    heads = {
        NasBertModel: DistilBertModel,
        NasBertForMaskedLM: DistilBertForMaskedLM,
        NasBertForSequenceClassification: DistilBertForSequenceClassification,
        NasBertForTokenClassification: DistilBertForTokenClassification,
        NasBertForQuestionAnswering: DistilBertForQuestionAnswering,
        NasBertForMultipleChoice: DistilBertForMultipleChoice,
    }
    near = {}
    fields = {
        "vocab_size": "vocab_size",
        "hidden_act": "activation",
        "hidden_dropout_prob": "dropout",
        "attention_probs_dropout_prob": "attention_dropout",
        "max_position_embeddings": "max_position_embeddings",
        "initializer_range": "initializer_range",
        "pad_token_id": "pad_token_id",
        "tie_word_embeddings": "tie_word_embeddings",
    }
    fixed = {"type_vocab_size": 1, "layer_norm_eps": 1e-12}
    layers = ("n_layers", "n_heads", "hidden_dim", "dim")
    encoder_names = tuple(
        (rf"transformer\.layer\.(?P<layer>\d+)\.{theirs}\.(?P<rest>.+)", f"encoder.blocks.{ours}.{{rest}}")
        for theirs, ours in _PARTS.items()
    )
    head_names = (
        (r"vocab_transform\.(?P<rest>.+)", "lm_head.dense.{rest}"),
        (r"vocab_layer_norm\.(?P<rest>.+)", "lm_head.LayerNorm.{rest}"),
        (r"vocab_projector\.(?P<rest>.+)", "lm_head.decoder.{rest}"),
        (r"pre_classifier\.(?P<rest>.+)", "nasbert.pooler.dense.{rest}"),
    )
    pooler_act = "relu"
    has_pooler = False

    def child_fields(self, config):
        return super().child_fields(config) | dict(self.fixed)

    def child_state(self, state, config):
        words = next(name for name in state if name.endswith("word_embeddings.weight"))
        segments = words.replace("word_embeddings", "token_type_embeddings")
        return {**state, segments: state[words].new_zeros(1, config.dim)}

    def stock_state(self, state, config):
        positions = next(name for name in state if name.endswith("position_embeddings.weight"))
        # The one segment's embedding is added to every token's: so it may as well be part of the positions'.
        segments = state[positions.replace("position_embeddings", "token_type_embeddings")]
        return {**state, positions: state[positions] + segments}


DISTILBERT = DistilBert()
